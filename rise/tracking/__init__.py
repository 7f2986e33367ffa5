"""Where the numbers of a stage are logged: wandb, TensorBoard, or nowhere."""
