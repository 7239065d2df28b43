"""The embedded demos: assets, plants and experts. Imported only by `kizzasi-edge demo` and the trainers."""
