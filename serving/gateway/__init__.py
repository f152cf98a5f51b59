"""The HTTP interface: payment systems send transactions, people judge and steer."""
