package bench

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/sixpn/sixpn/internal/nettest"
)

// plainPort is the UDP port of the first plain tunnel; the mesh of the same hosts has
// another.
const plainPort = 51841

// measureMesh measures TCP from a Machine of one host to a Machine of another, beside
// plain WireGuard between the same two hosts over the same underlay. The baseline has
// the engine that the mesh has; where the kernel has a WireGuard, there is one with
// wireguard-go besides.
func measureMesh(ctx context.Context, rounds int, each time.Duration, progress func(string)) (results []Result, err error) {
	f, err := newFleet(ctx, 2, progress)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	mesh, closeMesh, err := f.machinePath(ctx)
	if err != nil {
		return nil, err
	}
	defer closeMesh()

	engines := []string{engineUserspace}
	if kernel, err := kernelHasWireGuard(); err != nil {
		return nil, err
	} else if kernel {
		engines = []string{engineKernel, engineUserspace}
	}
	paths := []tcpPath{mesh}
	for i, engine := range engines {
		t, err := newTunnel(ctx, [2]*nettest.Host(f.Hosts), engine, plainPort+uint16(i), mtu)
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, t.close()) }()
		paths = append(paths, t.path())
	}
	s, err := measurePaths(ctx, paths, rounds, each, progress)
	if err != nil {
		return nil, err
	}
	for i, engine := range engines {
		suffix := ""
		if i > 0 {
			suffix = "_userspace"
		}
		results = append(results,
			newResult("mesh.throughput"+suffix, bits, engineNames[engine], s.throughput[0], s.throughput[i+1]),
			newResult("mesh.rr"+suffix, requests, engineNames[engine], s.rate[0], s.rate[i+1]))
	}
	return results, nil
}

// machinePath is the way from a Machine of the first host to one of the second.
func (f fleet) machinePath(ctx context.Context) (path tcpPath, closeAll func(), err error) {
	var machines [2]*nettest.Machine
	if err := f.Hosts[0].CreateOrg(ctx, "bench"); err != nil {
		return path, nil, err
	}
	if err := f.Hosts[0].CreateApp(ctx, "mesh", "bench"); err != nil {
		return path, nil, err
	}
	for i := range machines {
		if err := f.settle(ctx); err != nil { // the second host knows the app then
			return path, nil, err
		}
		h := f.Hosts[i]
		if machines[i], err = h.Run(ctx, "mesh", nettest.Options{}, h.Payload("idle")...); err != nil {
			return path, nil, fmt.Errorf("on host %d: %w", i, err)
		}
	}
	if err := f.settle(ctx); err != nil {
		return path, nil, err
	}
	client, err := machines[0].Namespace()
	if err != nil {
		return path, nil, err
	}
	server, err := machines[1].Namespace()
	if err != nil {
		client.Close()
		return path, nil, err
	}
	to := netip.AddrPortFrom(machines[1].Addr, backendPort)
	return tcpPath{"mesh", client.Do, server.Do, to, to}, func() { client.Close(); server.Close() }, nil
}
