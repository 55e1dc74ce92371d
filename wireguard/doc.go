// Package wireguard is the encrypted mesh between hosts: one device, with one peer
// for every other host.
//
// The device is the kernel's own WireGuard where the kernel has it, else a TUN
// device with wireguard-go as its engine. The engine is a process of its own, made
// of this same binary: it outlives the agent, and the next agent finds it by its
// socket, /var/run/wireguard/DEVICE.sock, which every WireGuard tool knows. The TUN
// device is persistent: it outlives the engine, with its index and what is attached
// to it, and the next engine takes it up again. Both kinds are configured through
// wgctrl, by difference: what is right is not touched.
//
// A peer may send, and is sent, what has its host's number in the network field of
// the address, as addresses between hosts travel rotated: one allowed prefix a
// host. No peer has a persistent keepalive: both ends know each other's endpoint,
// so either can begin a handshake at any time, and hosts of a fleet reach each
// other's underlay address without a translation in between that could forget them.
//
// The port is open on every address of the host, not on the underlay's alone: neither
// the kernel's WireGuard nor wireguard-go's sockets can be bound to one. Nothing is
// lost by it. WireGuard answers nobody who has no key of a peer, so that a port that is
// asked at another address is silent, as a closed one behind a filter would be; and a
// host whose underlay address changes is found at the new one as soon as it has sent.
//
// In Config.Dir are
//
//	mesh.key        the private key, base64
//	mesh.key.next   the one that replaces it, while RotateKey is at work
//	mesh.peers      the peers that were wanted last, JSON
//	engine.log      what the engine had to say, and engine.log.1 before it
package wireguard
