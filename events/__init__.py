"""The wire contract: every record that crosses a Kafka topic, and how it is read and written."""
