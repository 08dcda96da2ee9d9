"""What is measured: quality against ground truth, speed against torch, programs for TPUs."""
