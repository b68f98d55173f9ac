"""Scripts that turn public raw data into what ``load_dataset(..., source="real")`` reads."""
