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
	defer closeMesh()
	if err != nil {
		return nil, err
	}

	engines := []string{engineUserspace}
	if kernel, err := kernelHasWireGuard(); err != nil {
		return nil, err
	} else if kernel {
		engines = []string{engineKernel, engineUserspace}
	}
	paths := []tcpPath{mesh}
	for i, engine := range engines {
		t, tunnelErr := newTunnel(ctx, [2]*nettest.Host(f.Hosts), engine, plainPort+uint16(i), mtu)
		if tunnelErr != nil {
			return nil, tunnelErr
		}
		defer func() { err = errors.Join(err, t.close()) }()
		path, pathErr := t.path()
		if pathErr != nil {
			return nil, pathErr
		}
		paths = append(paths, path)
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
	if len(engines) == 1 { // the kernel's WireGuard works in threads of the kernel's
		results = append(results, newResult("mesh.cpu", "ms of CPU/MB", engineNames[engineUserspace], s.cpu[0], s.cpu[1]))
	}
	return results, nil
}

// machinePath is the way from a Machine of the first host to one of the second.
func (f fleet) machinePath(ctx context.Context) (path tcpPath, closeAll func(), err error) {
	var machines [2]*nettest.Machine
	if err := f.Hosts[0].CreateOrg(ctx, "bench"); err != nil {
		return path, func() {}, err
	}
	if err := f.Hosts[0].CreateApp(ctx, "mesh", "bench"); err != nil {
		return path, func() {}, err
	}
	for i := range machines {
		if err := f.Settle(ctx); err != nil { // the second host knows the app then
			return path, func() {}, err
		}
		h := f.Hosts[i]
		if machines[i], err = h.Run(ctx, "mesh", nettest.Options{}, h.Payload("idle")...); err != nil {
			return path, func() {}, fmt.Errorf("on host %d: %w", i, err)
		}
	}
	if err := f.Settle(ctx); err != nil {
		return path, func() {}, err
	}
	client, err := machines[0].Namespace()
	if err != nil {
		return path, func() {}, err
	}
	server, err := machines[1].Namespace()
	if err != nil {
		client.Close()
		return path, func() {}, err
	}
	to := netip.AddrPortFrom(machines[1].Addr, backendPort)
	path = tcpPath{name: "mesh", client: client.Do, server: server.Do, listen: to, to: to}
	if kernel, kernelErr := kernelHasWireGuard(); kernelErr != nil {
		err = kernelErr
	} else if !kernel {
		path.clock, err = engineClock(f.Hosts[0].Name, f.Hosts[1].Name)
	}
	return path, func() { client.Close(); server.Close() }, err
}
