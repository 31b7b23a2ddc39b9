"""What `experiments.benchmark` measures: the same networks in fishnet and in what people use otherwise."""
