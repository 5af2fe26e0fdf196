"""The engine: a cfg file in, a net that trains and tests out. Start with convnet/net.py."""
