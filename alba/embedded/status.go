package embedded

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"openvstorage/alba/client"
	"openvstorage/alba/health"
	"openvstorage/alba/maintenance"
	"openvstorage/alba/policy"
	"openvstorage/arakoon/groups"

	"github.com/google/uuid"
)

// Health of a backend.
const (
	HealthOK       = health.OK
	HealthDegraded = health.Degraded   // something is wrong, and everything can be read
	HealthBad      = health.Unreadable // something cannot be read
)

// Status is the state of a backend.
type Status struct {
	ID       uuid.UUID    `json:"id"`
	Health   health.State `json:"health"`
	Reasons  []string     `json:"reasons,omitempty"`
	Disks    int          `json:"disks"`
	Missing  int          `json:"missing"` // disks of which nothing can be read now
	Used     uint64       `json:"used"`    // of the disks that are there
	Capacity uint64       `json:"capacity"`
	// FileSystems is how many file systems these disks are on. Disks on one file system
	// share its room, and fail together.
	FileSystems int     `json:"file_systems"`
	Groups      []Group `json:"groups"`
	Namespaces  int     `json:"namespaces"`
	Objects     uint64  `json:"objects"`
	Size        uint64  `json:"size"`   // bytes of objects
	Stored      uint64  `json:"stored"` // bytes of their fragments
	// Narrow is the number of objects below full width.
	Narrow uint64 `json:"below_full_width"`
	// Failed is the number of objects whose last read failed though their disks are
	// there.
	Failed uint64 `json:"failed_reads"`
	// MayDie is how many more disks may die, whichever they are, before an object is
	// lost. Below zero, it is how many disks are missing to read all objects.
	MayDie      int               `json:"disks_that_may_die"`
	Scrub       Scrub             `json:"scrub"`
	Maintenance maintenance.Stats `json:"maintenance"`
	Client      client.Stats      `json:"client"`
}

// Group is the state of an Arakoon group, for people.
type Group struct {
	Name   string       `json:"name"`
	State  health.State `json:"state"`
	Reason string       `json:"reason,omitempty"`
}

// Err tells why one of the backend's groups has failed, nil if none has. The member of a group
// that has failed is opened anew by itself, and answers nothing until then.
func (b *Backend) Err() error {
	var errs []error
	for _, spec := range Specs() {
		if n := b.groups.Node(spec.Name); n != nil {
			errs = append(errs, n.Err())
		}
	}
	return errors.Join(errs...)
}

// Status returns the state of the whole. If a group has failed, the rest is told as far
// as it is known.
func (b *Backend) Status(ctx context.Context) (Status, error) {
	s, _, err := b.status(ctx)
	return s, err
}

// status is Status, with the disks.
func (b *Backend) status(ctx context.Context) (Status, []OSD, error) {
	o := overview{Status: Status{ID: b.opt.ID, Maintenance: b.work.Stats(), Client: b.Client.Stats()}}
	answer := o.addGroups(groupsNow(b.groups))
	disks, err := b.disksNow(ctx, answer)
	if err != nil {
		return o.Status, nil, err
	}
	o.addDisks(disks, b.work.ScrubTime())
	if answer {
		if err := o.addObjects(ctx, b.Inventory); err != nil {
			return o.Status, nil, err
		}
		var list []policy.Policy
		if p, err := b.Preset(ctx, ""); err == nil { // else the rest is told without it
			list = p.Policies
		}
		o.judgePolicies(list, b.fleet.Disks(), disks)
	}
	o.Failed, o.all.Example = b.work.Failed()
	o.all.Failed, o.all.NoPlace = o.Failed, o.Maintenance.NoPlace
	if err := b.generations.mayDelete(); err != nil {
		o.all.Suspended = err.Error()
	}
	if err := b.work.Alarm(); err != nil {
		o.all.Alarms = append(o.all.Alarms, err.Error())
	}
	is := o.all.Judge()
	o.Health, o.Reasons = is.State, is.Reasons
	return o.Status, disks, nil
}

// disksNow returns the disks, as far as they are known if the managers do not answer.
func (b *Backend) disksNow(ctx context.Context, answer bool) ([]OSD, error) {
	if !answer {
		return b.fleetOSDs(ctx), nil
	}
	return b.OSDs(ctx)
}

// groupsNow is what is known of the groups of a data directory: those of the managers,
// and the others.
func groupsNow(of *groups.Groups) []health.Group {
	var list []health.Group
	older := !of.Suspended().IsZero()
	for _, name := range of.Names() {
		node := of.Node(name)
		if node == nil {
			continue // its member has just gone to another host
		}
		g := health.Group{Name: name, Waits: node.Stats().Full, Older: older}
		g.Reads = slices.ContainsFunc(Specs(), func(s groups.Spec) bool { return s.Name == name })
		if err := node.Err(); err != nil {
			g.Failed = err.Error()
			if fate, _ := of.Fate(name); fate.Failed != nil {
				g.Failed = fate.String()
			}
			g.Reads = g.Reads && len(node.Members().All()) < 2 // else others answer
		}
		list = append(list, g)
	}
	return list
}

// overview is a Status under construction, with what its health is judged by.
type overview struct {
	Status
	all  health.Backend
	gone map[uint64]bool // disks that cannot be read now
}

// addGroups enters the groups, and reports whether the managers' answer.
func (o *overview) addGroups(list []health.Group) (answer bool) {
	answer, o.all.Groups = true, list
	for i := range list {
		is := list[i].Judge()
		o.Groups = append(o.Groups, Group{Name: list[i].Name, State: is.State, Reason: is.Reason})
		answer = answer && !(is.State == health.Failed && list[i].Reads)
	}
	return answer
}

// addDisks enters the disks.
func (o *overview) addDisks(disks []OSD, scrub time.Duration) {
	o.gone = make(map[uint64]bool)
	var rooms []health.Room
	on := make(map[uint64]bool)
	for _, d := range disks {
		o.all.Disks = append(o.all.Disks, health.DiskNamed{Number: d.Number, Place: d.Dir, Disk: d.known})
		if d.State != health.Lost {
			o.Disks++
		}
		if d.is.Gone {
			o.Missing++
			o.gone[d.Number] = true
			continue
		}
		rooms = append(rooms, health.Room{Used: d.Used, Capacity: d.Capacity, Shared: d.shared})
		if d.shared == 0 { // it is not known: taken for one of its own
			o.FileSystems++
		}
		on[d.shared] = d.shared != 0
	}
	for _, shared := range on {
		if shared {
			o.FileSystems++
		}
	}
	o.Used, o.Capacity = health.Total(rooms)
	o.Scrub = scrubOfAll(disks, scrub)
}

// addObjects enters what the managers know of namespaces and objects. MayDie is MaxInt
// if no object has fragments.
func (o *overview) addObjects(ctx context.Context, in *Inventory) error {
	spaces, unknown, err := in.namespaces(ctx)
	if err != nil {
		return err
	}
	lost, err := in.lostNamespaces(ctx, spaces, unknown)
	if err != nil {
		return err
	}
	o.all.Namespaces = lost
	waiting, suspects, least, err := in.census.suspects(ctx, o.gone)
	if err != nil {
		return err
	}
	o.all.Waiting = suspects
	o.MayDie = max(least, 0) // suspects below zero cannot be read, which Failed counts
	for i := range spaces {
		n := &spaces[i]
		o.Namespaces++
		o.Objects, o.Size, o.Stored = o.Objects+n.Objects, o.Size+n.Size, o.Stored+n.Stored
		of, err := in.judged(ctx, n, o.gone, waiting[n.Number])
		if err != nil {
			return err
		}
		o.all.Namespaces = append(o.all.Namespaces, of)
		o.Narrow += of.Narrow
		if of.Coded {
			o.MayDie = min(o.MayDie, of.MayLose)
		}
	}
	return nil
}

// judgePolicies enters what the policies of the default preset allow with the disks that
// there are. list is nil if the preset cannot be read.
func (o *overview) judgePolicies(list []policy.Policy, disks []policy.Disk, now []OSD) {
	if o.MayDie == math.MaxInt { // nothing is stored yet
		o.MayDie = parityNow(list, disks)
	}
	if list != nil {
		o.all.NoRoom = noRoom(list, disks, now)
	}
}

// parityNow is how many disks an object that is stored now can lose, 0 if none can be
// stored.
func parityNow(list []policy.Policy, disks []policy.Disk) int {
	i, width, ok := policy.Choose(list, disks)
	if !ok {
		return 0
	}
	return width - int(list[i].K)
}

// noRoom says why no object can be stored under any of the policies, "" if one can.
func noRoom(list []policy.Policy, disks []policy.Disk, now []OSD) string {
	takes := make(map[uint64]bool)
	for _, d := range now {
		takes[d.Number] = d.is.Takes()
	}
	disks = slices.Clone(disks)
	for i := range disks {
		disks[i].Failing = disks[i].Failing || !takes[disks[i].OSD]
	}
	if _, _, ok := policy.Choose(list, disks); ok {
		return ""
	}
	return fmt.Sprintf("too few disks take what is written to keep any of the policies %s: writes get ENOSPC or wait; make room, bring disks back, or add one with `ovs alba osd add`", show(list))
}
