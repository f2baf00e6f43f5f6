package members

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"openvstorage/arakoon"
	"openvstorage/arakoon/membership"
	"openvstorage/arakoon/placement"
	"openvstorage/arakoon/roster"
	hosts "openvstorage/host/roster"
	"openvstorage/internal/wire"
)

const (
	lease     = "membership"     // its name in the config group
	leaseTime = 20 * time.Second // its time to live
	lookEvery = 5 * time.Second  // between two looks whether anything is to be done
	lookAgain = 200 * time.Millisecond
	lookTime  = 15 * time.Second // that one look and its pass may take: less than the lease lives
	patience  = 2 * time.Second  // with a host that is asked something
	makeTime  = 5 * time.Second  // that a host may take to make a member
)

// steward looks again and again whether the members are where they should be, while this host
// leads the config group, and brings them there.
func (m *Members) steward() {
	w := &stewardship{Members: m, callers: map[uuid.UUID]*caller{}}
	defer w.close()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		again := false
		if m.all[Config].store.leading() != nil {
			var err error
			if again, err = w.look(); err != nil && m.loops.Err() == nil {
				m.o.Logger.Warn("members of groups are not all where they should be", "err", err)
			}
		}
		var soon <-chan time.Time
		if again {
			soon = time.After(lookAgain)
		}
		select {
		case <-soon:
		case <-m.wake:
		case <-tick.C:
		case <-m.loops.Done():
			return
		}
	}
}

// stewardship is the work of a steward. It is for one goroutine, but for what is asked of
// several hosts at the same time.
type stewardship struct {
	*Members
	mu      sync.Mutex
	callers map[uuid.UUID]*caller
}

// caller is a connection to the service of a host.
type caller struct {
	address string
	wire    *wire.Redialer
}

func (w *stewardship) close() {
	for _, c := range w.callers {
		c.wire.Close()
	}
}

// look finds out, without a write, whether anything is to be done, and does it under the
// lease. again: there may be more to do at once.
func (w *stewardship) look() (again bool, err error) {
	ctx, cancel := context.WithTimeout(w.loops, lookTime)
	defer cancel()
	due, err := w.due(ctx)
	if err != nil || !due {
		return false, err
	}
	store := w.all[Config].store
	held, err := store.acquire(ctx, lease, w.o.Self, leaseTime)
	if errors.Is(err, arakoon.ErrLeaseHeld) {
		return false, nil // another host is at it
	}
	if err != nil {
		return false, fmt.Errorf("lease %q: %w", lease, err)
	}
	again, err = w.pass(ctx)
	return again, errors.Join(err, store.release(ctx, held))
}

// due says whether a pass would change anything.
func (w *stewardship) due(ctx context.Context) (bool, error) {
	r, err := w.book().Read(ctx)
	if err != nil {
		return false, err
	}
	known, err := w.known(ctx)
	if err != nil {
		return false, err
	}
	before := r.Encode(w.o.Cluster, 1)
	w.adjust(r, known)
	if r.Sort(); !bytes.Equal(before, r.Encode(w.o.Cluster, 1)) {
		return true, nil
	}
	if led, err := administer(w.Members).ledInMaintenance(ctx, r); len(led) > 0 || err != nil {
		return len(led) > 0, err
	}
	dry := dryRun{w.remote(), membership.Kept{Book: w.book()}, viewer{w.Members}}
	s := membership.Steward{Rosters: dryRosters{dry}, Groups: dry, Hosts: dry}
	reports, err := s.Pass(ctx)
	for _, report := range reports {
		if errors.Is(report.Err, errDry) {
			return true, nil
		}
		err = errors.Join(err, report.Err)
	}
	return false, err
}

// pass takes one step in each group: first the roster takes over what hosts say of
// themselves.
func (w *stewardship) pass(ctx context.Context) (again bool, err error) {
	known, err := w.known(ctx)
	if err != nil {
		return false, err
	}
	err = w.book().Change(ctx, func(r *roster.Roster) error {
		w.adjust(r, known)
		return nil
	})
	if err != nil {
		return false, err
	}
	if err := w.read(); err != nil {
		return false, err
	}
	led, err := administer(w.Members).ledInMaintenance(ctx, w.file.Now())
	if err != nil {
		return false, err
	}
	for _, of := range led { // the config group is the last one: then another host goes on
		if err := administer(w.Members).giveLead(ctx, of); err != nil {
			return false, err
		}
	}
	s := membership.Steward{Rosters: kept{membership.Kept{Book: w.book()}, w.Members}, Groups: viewer{w.Members}, Hosts: bounded{w.remote()}, Logger: w.o.Logger}
	reports, err := s.Pass(ctx)
	for _, report := range reports {
		again = again || report.Step.Kind != placement.Rest
		err = errors.Join(err, report.Err)
	}
	return again && err == nil, err
}

// known are the hosts that have said where they are.
func (w *stewardship) known(ctx context.Context) (list []hosts.Host, err error) {
	return hosts.List(ctx, w.Records(), func(err error) { w.o.Logger.Warn("a record of a host is left out", "err", err) })
}

// adjust brings the roster to what hosts say of themselves: who may hold members, and where
// they are. A host that may hold none stays listed while a member is on it. The first host
// lists the groups that it has made.
func (w *stewardship) adjust(r *roster.Roster, known []hosts.Host) {
	for _, k := range known {
		was, listed := r.Host(k.ID)
		now := roster.Host{ID: k.ID, Zone: k.Zone, Addresses: slices.Clone(k.Addresses), Insecure: k.Insecure, Leaves: was.Leaves, Maintenance: was.Maintenance}
		holds, _ := w.may(k.ID)
		used := slices.ContainsFunc(r.Groups, func(g roster.Group) bool { _, on := g.MemberOn(k.ID); return on })
		switch {
		case !holds && !used:
			r.Hosts = slices.DeleteFunc(slices.Clone(r.Hosts), func(h roster.Host) bool { return h.ID == k.ID })
		case holds || listed: // one that is to hold nothing any more is reached until it does
			r.PutHost(now)
			r.Sort()
		}
	}
	if _, listed := r.Host(w.o.Self); w.o.Self != w.o.Cluster || !listed {
		return
	}
	for _, name := range w.Names() {
		if _, listed := r.Group(name); !listed {
			config, _ := r.Group(Config) // what holds for the others holds for it
			r.PutGroup(roster.Group{Name: name, Next: 2, RequireZones: config.RequireZones, Members: []roster.Member{{ID: 1, Host: w.o.Self}}})
			r.Sort()
		}
	}
}

// remote are the hosts, as the roster of this host has them.
func (w *stewardship) remote() *membership.Remote {
	return &membership.Remote{
		Cluster: w.o.Cluster, Self: w.o.Self, Local: keeper{w.Members}, Dial: w.dial, Patience: patience, Roster: w.file.Now,
		Place: func(id uuid.UUID) (holds, leaves bool) {
			holds, leaves = w.may(id)
			h, _ := w.file.Now().Host(id)
			return holds, leaves || h.Leaves
		},
	}
}

// bounded are hosts of which one that does not answer keeps nobody from the others.
type bounded struct{ *membership.Remote }

// Make implements membership.Hosts.
func (b bounded) Make(ctx context.Context, host uuid.UUID, group string, member uint64) error {
	ctx, cancel := context.WithTimeout(ctx, makeTime)
	defer cancel()
	return b.Remote.Make(ctx, host, group, member)
}

// Drop implements membership.Hosts. A host that was removed, or cannot hold members, is not
// asked: nobody speaks with it any more.
func (b bounded) Drop(ctx context.Context, host uuid.UUID, group string, member uint64) error {
	if holds, _ := b.Place(host); !holds {
		return errors.New("it was removed from the cluster")
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return b.Remote.Drop(ctx, host, group, member)
}

// dial returns the connection to a host's service.
func (w *stewardship) dial(to roster.Host) (membership.Caller, error) {
	if len(to.Addresses) == 0 {
		return nil, errors.New("the roster has no address of it")
	}
	address := w.address(to)
	w.mu.Lock()
	defer w.mu.Unlock()
	c := w.callers[to.ID]
	if c != nil && c.address == address {
		return c.wire, nil
	}
	if c != nil {
		c.wire.Close()
		delete(w.callers, to.ID)
	}
	r, err := wire.NewRedialer(wire.RedialOptions{Target: func(ctx context.Context) (wire.DialOptions, error) {
		o := w.host.Load().DialOptions(ctx, to.ID, membership.Service)
		o.Network, o.Address = "tcp", address
		return o, nil
	}})
	if err != nil {
		return nil, err
	}
	w.callers[to.ID] = &caller{address, r}
	return r, nil
}

// viewer are the groups, by their masters.
type viewer struct{ of *Members }

var _ membership.Groups = viewer{}

// View implements membership.Groups.
func (v viewer) View(ctx context.Context, group string) (membership.View, error) {
	return v.of.view(ctx, group)
}

// AddLearner implements membership.Groups.
func (v viewer) AddLearner(ctx context.Context, group string, member uint64) error {
	now, err := v.of.view(ctx, group)
	if err != nil {
		return err
	}
	if now.Changing {
		return arakoon.ErrChanging
	}
	Leveling{v.of}.fresh(ctx, group)
	return v.of.all[group].store.change(ctx, now.Voters, append(slices.Clone(now.Learners), member))
}

// Change implements membership.Groups. A member that leads is not taken out: it gives the
// lead away first, and the next pass takes it out.
func (v viewer) Change(ctx context.Context, group string, voters, learners []uint64) error {
	now, err := v.of.view(ctx, group)
	if err != nil {
		return err
	}
	store := v.of.all[group].store
	if !slices.Contains(voters, now.Leader) {
		c, err := store.remote()
		if err != nil {
			return err
		}
		return c.DropMaster(ctx, v.successor(now, voters))
	}
	return store.change(ctx, voters, learners)
}

// Require implements membership.Groups.
func (v viewer) Require(ctx context.Context, group string, zones int) error {
	return v.of.all[group].store.require(ctx, zones, false)
}

// successor is a voter that stays one, 0 if there is none.
func (v viewer) successor(now membership.View, voters []uint64) uint64 {
	for _, id := range voters {
		if slices.Contains(now.Voters, id) {
			return id
		}
	}
	return 0
}

// kept is the roster in the config group, whose changes this host takes up before it acts on
// them: a host learns of a member from what it is sent, which is this host's roster.
type kept struct {
	membership.Kept
	of *Members
}

// Write implements membership.Rosters.
func (k kept) Write(ctx context.Context, was, now roster.Group) error {
	if err := k.Kept.Write(ctx, was, now); err != nil {
		return err
	}
	return k.of.read()
}

// errDry: something is to be done.
var errDry = errors.New("something is to be done")

// dryRun looks at groups and hosts, and does nothing to them.
type dryRun struct {
	*membership.Remote
	roster membership.Kept
	viewer
}

// Make implements membership.Hosts.
func (dryRun) Make(context.Context, uuid.UUID, string, uint64) error { return errDry }

// Drop implements membership.Hosts.
func (dryRun) Drop(context.Context, uuid.UUID, string, uint64) error { return errDry }

// AddLearner implements membership.Groups.
func (dryRun) AddLearner(context.Context, string, uint64) error { return errDry }

// Change implements membership.Groups.
func (dryRun) Change(context.Context, string, []uint64, []uint64) error { return errDry }

// Require implements membership.Groups.
func (dryRun) Require(context.Context, string, int) error { return errDry }

// dryRosters reads the roster, and writes none.
type dryRosters struct{ dryRun }

// Read implements membership.Rosters.
func (d dryRosters) Read(ctx context.Context) (*roster.Roster, error) { return d.roster.Read(ctx) }

// Write implements membership.Rosters.
func (d dryRosters) Write(context.Context, roster.Group, roster.Group) error { return errDry }
