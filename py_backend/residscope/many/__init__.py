"""Attribution of many caches, one after another: `residscope.attribute_many`, and its results."""
