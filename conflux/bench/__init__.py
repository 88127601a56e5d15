"""What `conflux bench` measures: this board, with nobody else.

    ciphers, codec, handshake        calls of this process
    start, memory                    processes of their own
    link      engine ◄─UDP, loopback─► engine
    tunnel    sockets ◄► TUN ◄► engine ◄─UDP─► engine ◄► TUN ◄► sockets      in network namespaces that end with it

Figures are told to a Tell as they come (figure.py); report.py keeps and compares them, page.py shows them.
"""
