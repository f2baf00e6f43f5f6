package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/google/uuid"

	"openvstorage/host/roster"
	"openvstorage/internal/control"
	"openvstorage/trust"
)

// Lost is a host of a zone that is off for good, as a person is about to say.
type Lost struct {
	ID        uuid.UUID
	Zone      string
	Addresses []string
	First     bool   // it is the cluster's first, which has the disks and the vDisks
	Answers   bool   // something takes connections at one of its addresses
	State     string // in words
}

// LostIn are the hosts of the cluster in some zones, and whether they answer. It asks the hosts
// themselves, and not the config group: that answers nothing while it lacks a zone. What takes
// connections and says nothing counts as a host that answers.
func (h Management) LostIn(ctx context.Context, zones []string) ([]Lost, error) {
	if _, err := h.writes(); err != nil {
		return nil, err
	}
	known := slices.DeleteFunc(slices.Clone(asks(h.Host).known()), func(r roster.Host) bool { return r.Zone == "" || !slices.Contains(zones, r.Zone) })
	list := make([]Lost, len(known))
	var asked sync.WaitGroup
	places := make(chan struct{}, surveyMost)
	for i, r := range known {
		list[i] = Lost{ID: r.ID, Zone: r.Zone, Addresses: r.Addresses, First: r.ID == h.cluster, State: "away"}
		if r.ID == h.id {
			list[i].Answers, list[i].State = true, "this host"
			continue
		}
		asked.Go(func() {
			places <- struct{}{}
			defer func() { <-places }()
			for _, a := range slices.Concat(r.Addresses, r.Storage) {
				if err := asks(h.Host).answers(ctx, r.ID, a); err == nil {
					list[i].Answers, list[i].State = true, "answers at "+a
				} else if !errors.Is(err, ErrAway) {
					list[i].Answers, list[i].State = true, err.Error()
				}
			}
		})
	}
	asked.Wait()
	slices.SortFunc(list, func(a, b Lost) int { return strings.Compare(a.Zone+a.ID.String(), b.Zone+b.ID.String()) })
	return list, ctx.Err() // hosts that were not asked in time are not away
}

// GiveUp ends the membership of hosts, on record, and has this host obey that. It can be done
// again after it was cut short. Then no other host of their zones may be left: one that this host
// did not know of is an error, and stays a member.
func (h Management) GiveUp(ctx context.Context, hosts []uuid.UUID, zones []string) error {
	r, err := h.writes()
	if err != nil {
		return err
	}
	for _, id := range hosts {
		if err := r.RemoveHost(ctx, id, "the host was given up with its zone, by ovs recover --require-zones"); err != nil {
			return fmt.Errorf("host %s is not given up yet: %w", id, kind(err))
		}
	}
	h.obeyNow(ctx)
	all, err := r.Hosts(ctx)
	if err != nil {
		return kind(err)
	}
	where, err := roster.List(ctx, h.writable(), h.faults.tell)
	if err != nil {
		return err
	}
	for _, w := range where {
		stays := slices.ContainsFunc(all, func(t trust.Host) bool { return t.ID == w.ID && t.State == trust.Joined })
		if stays && w.Zone != "" && slices.Contains(zones, w.Zone) {
			return fmt.Errorf("%w: host %s is in zone %s too, and was not shown", control.ErrBusy, w.ID, w.Zone)
		}
	}
	return nil
}
