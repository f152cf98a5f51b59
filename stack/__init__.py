"""The local stack without Docker: Kafka, Flink, Redis and a MongoDB-protocol server under supervisord."""
