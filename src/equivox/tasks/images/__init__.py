"""Classes of everyday images: CIFAR, Galaxy Zoo, folders of classes."""
