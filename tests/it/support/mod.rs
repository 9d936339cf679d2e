//! Real parts for the tests: programs found or built here, each stopped when its value is dropped.
