"""Links as they are carried: WebRTC data channels of aiortc, behind the commands and events of interface.py."""
