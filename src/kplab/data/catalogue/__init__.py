"""The catalogue of public datasets: where they are, under which licence, and how they are fetched, verified and unpacked."""
