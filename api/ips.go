package api

import (
	"context"
	"net/netip"

	"github.com/sixpn/sixpn/state"
)

// The only kind of address there is: one of Flycast.
const privateV6 = "private_v6"

func (o *operations) ListIPAssignments(_ context.Context, r ListIPAssignmentsRequestObject) (ListIPAssignmentsResponseObject, error) {
	snapshot := o.config.Store.Snapshot()
	if _, err := o.app(snapshot, r.AppName); err != nil {
		return nil, err
	}
	list := IPAssignmentList{Ips: []IPAssignment{}}
	for _, vip := range snapshot.AppVIPs(r.AppName) {
		list.Ips = append(list.Ips, assignmentOf(snapshot, vip))
	}
	return ListIPAssignments200JSONResponse(list), nil
}

func (o *operations) CreateIPAssignment(ctx context.Context, r CreateIPAssignmentRequestObject) (CreateIPAssignmentResponseObject, error) {
	switch {
	case r.Body.Type != privateV6:
		return nil, invalid("type", "type is %q, expected %s: there are no public addresses here", r.Body.Type, privateV6)
	case r.Body.Region != "" && r.Body.Region != "global":
		return nil, invalid("region", "region is %q, expected global or nothing: a Flycast address is in every region", r.Body.Region)
	case r.Body.ServiceName != "":
		return nil, invalid("service_name", "service_name is %q, expected nothing: an address leads to all services of its app", r.Body.ServiceName)
	}
	if err := checkWait(r.Params.Wait); err != nil {
		return nil, err
	}
	if _, err := o.app(o.config.Store.Snapshot(), r.AppName); err != nil {
		return nil, err
	}
	vip, revision, err := o.config.Store.CreateVIP(ctx, state.NewVIP{ID: r.Body.ID, App: r.AppName, Org: r.Body.OrgSlug, Network: r.Body.Network})
	if err != nil {
		return nil, err
	}
	if err := o.written(ctx, revision, r.Params.Wait); err != nil {
		return nil, err
	}
	return CreateIPAssignment200JSONResponse{
		Body:    assignmentOf(o.config.Store.Snapshot(), vip),
		Headers: CreateIPAssignment200ResponseHeaders{SixpnRevision: revision},
	}, nil
}

func (o *operations) GetIPAssignment(_ context.Context, r GetIPAssignmentRequestObject) (GetIPAssignmentResponseObject, error) {
	addr, err := assigned(r.IP)
	if err != nil {
		return nil, err
	}
	snapshot := o.config.Store.Snapshot()
	if _, err := o.app(snapshot, r.AppName); err != nil {
		return nil, err
	}
	vip, ok := snapshot.VIPs[addr]
	if !ok || vip.App != r.AppName {
		return nil, notFound("ip", "app %s has no Flycast address %v; list them with: sixpn ips list -a %s", r.AppName, addr, r.AppName)
	}
	return GetIPAssignment200JSONResponse(assignmentOf(snapshot, vip)), nil
}

// assigned is the address in a path.
func assigned(ip string) (netip.Addr, error) {
	addr, err := netip.ParseAddr(ip)
	if err != nil {
		return netip.Addr{}, invalid("ip", "ip is %q, expected an IPv6 address such as fdaa:0:1:0:1::1", ip)
	}
	return addr, nil
}

func (o *operations) DeleteIPAssignment(ctx context.Context, r DeleteIPAssignmentRequestObject) (DeleteIPAssignmentResponseObject, error) {
	addr, err := assigned(r.IP)
	if err != nil {
		return nil, err
	}
	if err := checkWait(r.Params.Wait); err != nil {
		return nil, err
	}
	if _, err := o.app(o.config.Store.Snapshot(), r.AppName); err != nil {
		return nil, err
	}
	revision, err := o.config.Store.ReleaseVIP(ctx, r.AppName, addr)
	if err != nil {
		return nil, err
	}
	if err := o.written(ctx, revision, r.Params.Wait); err != nil {
		return nil, err
	}
	return DeleteIPAssignment204Response{
		Headers: DeleteIPAssignment204ResponseHeaders{SixpnRevision: revision},
	}, nil
}

func assignmentOf(snapshot *state.Snapshot, vip state.VIP) IPAssignment {
	network := snapshot.Networks[vip.Network]
	return IPAssignment{
		IP: vip.Addr().String(), Region: "global", CreatedAt: vip.CreatedAt,
		OrgSlug: network.Org, Network: network.Name,
	}
}
