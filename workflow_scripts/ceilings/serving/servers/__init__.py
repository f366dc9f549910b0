"""Servers of version 2 of KServe's protocol: started, watched and stopped, or there already."""
