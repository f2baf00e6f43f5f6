package host

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"

	"openvstorage/host/members"
	"openvstorage/internal/control"
)

// Zones implements control.Arakoon.
func (m managedGroups) Zones(ctx context.Context) ([]control.ArakoonZones, error) {
	list := []control.ArakoonZones{}
	if m.members != nil {
		return zonesOf(members.Zoning{Of: m.members}.List(ctx)), nil
	}
	for _, name := range m.names() {
		list = append(list, control.ArakoonZones{Group: name, InForce: true})
	}
	return list, nil
}

// RequireZones implements control.Arakoon.
func (m managedGroups) RequireZones(ctx context.Context, zones int) ([]control.ArakoonZones, error) {
	if m.members == nil {
		return nil, fmt.Errorf("%w: this machine is in no cluster, and so in one zone: give ovs up --listen, and join others", control.ErrInvalid)
	}
	list, err := members.Zoning{Of: m.members}.Require(ctx, zones)
	switch {
	case errors.Is(err, members.ErrZones):
		return nil, fmt.Errorf("%w: %w", control.ErrInvalid, err)
	case err != nil:
		return nil, groupError(members.Config, err)
	}
	return zonesOf(list), nil
}

// Lose implements control.Arakoon.
func (m managedGroups) Lose(ctx context.Context, zones int) (control.ArakoonLoss, error) {
	return m.loss(func(z members.Zoning) (members.Loss, error) { return z.Lose(ctx, zones) })
}

// AssertZones implements control.Arakoon.
func (m managedGroups) AssertZones(ctx context.Context, zones int, lost []uuid.UUID) (control.ArakoonLoss, error) {
	return m.loss(func(z members.Zoning) (members.Loss, error) { return z.Assert(ctx, zones, lost) })
}

func (m managedGroups) loss(find func(members.Zoning) (members.Loss, error)) (out control.ArakoonLoss, err error) {
	if m.members == nil {
		return out, fmt.Errorf("%w: this machine is in no cluster, and requires no zones", control.ErrInvalid)
	}
	l, err := find(members.Zoning{Of: m.members})
	switch {
	case errors.Is(err, members.ErrZones):
		return out, fmt.Errorf("%w: %w", control.ErrInvalid, err)
	case err != nil:
		return out, groupError(members.Config, err)
	}
	out = control.ArakoonLoss{Zones: l.Zones, Groups: zonesOf(l.Groups), Hosts: []control.LostHost{}}
	for _, h := range l.Hosts {
		out.Hosts = append(out.Hosts, control.LostHost{ID: h.ID, Zone: h.Zone, Addresses: h.Addresses, First: h.First, Members: m.members.On(h.ID), State: h.State})
	}
	return out, nil
}

func zonesOf(groups []members.GroupZones) []control.ArakoonZones {
	list := []control.ArakoonZones{}
	for _, g := range groups {
		r := g.Requirement
		list = append(list, control.ArakoonZones{
			Group: g.Group, Wanted: g.Wanted, Required: r.Zones, InForce: g.InForce(), Since: r.Since, Lowered: r.Lowered, From: r.From,
			Asserted: r.Asserted, Zones: g.Zones, Error: text(g.Err),
		})
	}
	return list
}
