package embedded

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"openvstorage/alba/abm"
	"openvstorage/alba/client"
	"openvstorage/alba/health"
	"openvstorage/alba/maintenance"
	"openvstorage/alba/manifest"
	"openvstorage/alba/nsm"
	"openvstorage/alba/nsm/userfn"
	"openvstorage/alba/policy"
	"openvstorage/arakoon/groups"

	"github.com/google/uuid"
)

// Health of a backend.
const (
	HealthOK       = health.OK
	HealthDegraded = health.Degraded   // something is not as it should be, nothing is lost
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
	// FileSystems is how many file systems these disks are on: those that share one
	// have its room together, and fail together.
	FileSystems int     `json:"file_systems"`
	Groups      []Group `json:"groups"`
	Namespaces  int     `json:"namespaces"`
	Objects     uint64  `json:"objects"`
	Size        uint64  `json:"size"`   // bytes of objects
	Stored      uint64  `json:"stored"` // bytes of their fragments
	// Narrow is the number of objects below full width.
	Narrow uint64 `json:"below_full_width"`
	// Failed is the number of objects that could not be read when that was tried
	// last, though their disks are there.
	Failed uint64 `json:"failed_reads"`
	// MayDie is how many more disks may die, whichever they are, before an
	// object is lost; below zero, so many disks are missing to read all.
	MayDie      int               `json:"disks_that_may_die"`
	Scrub       Scrub             `json:"scrub"`
	Maintenance maintenance.Stats `json:"maintenance"`
	Client      client.Stats      `json:"client"`
}

// Group is what people are told of an Arakoon group.
type Group struct {
	Name   string       `json:"name"`
	State  health.State `json:"state"`
	Reason string       `json:"reason,omitempty"`
}

// Namespace is what people are told of a namespace.
type Namespace struct {
	Name    string            `json:"name"`
	Number  uint64            `json:"number"`
	Preset  string            `json:"preset"`
	Host    uint64            `json:"nsm_host"`
	State   health.State      `json:"state"`
	Reason  string            `json:"reason,omitempty"`
	Created time.Time         `json:"created"`
	Objects uint64            `json:"objects"`
	Size    uint64            `json:"size"`
	Stored  uint64            `json:"stored"`
	Buckets []nsm.BucketCount `json:"buckets,omitempty"`
	OSDs    []nsm.OSDUsage    `json:"osds,omitempty"`
	Epochs  *nsm.Epochs       `json:"epochs,omitempty"`
}

// Object is what people are told of an object.
type Object struct {
	Name    string    `json:"name"`
	ID      string    `json:"id"`
	Size    uint64    `json:"size"`
	Stored  uint64    `json:"stored"`
	Version uint64    `json:"version"`
	Put     time.Time `json:"put"`
	Policy  string    `json:"policy"` // "inline" for one in its manifest
	Width   int       `json:"width"`  // fragments of its weakest chunk
	Full    bool      `json:"full_width"`
	// State counts the fragments that are on disks which can be read now.
	State  health.State `json:"state"`
	Chunks []Chunk      `json:"chunks,omitempty"`
}

// Chunk is a chunk of an object.
type Chunk struct {
	Plain     uint32     `json:"plain"`
	Stored    uint32     `json:"stored"`
	Fragments []Fragment `json:"fragments"`
}

// Fragment is a fragment and how it is.
type Fragment struct {
	OSD    uint64 `json:"osd"`
	Key    string `json:"key"`
	Length uint32 `json:"length"`
	State  string `json:"state"` // ok, or why it cannot be read
}

// Err tells why one of the backend's groups has failed, nil if none has. Such a
// group does nothing more until it is opened again.
func (b *Backend) Err() error {
	var errs []error
	for _, spec := range Specs() {
		errs = append(errs, b.groups.Node(spec.Name).Err())
	}
	return errors.Join(errs...)
}

// Status returns the state of the whole. A group that has failed leaves the rest to
// be told as far as it is known.
func (b *Backend) Status(ctx context.Context) (Status, error) {
	s, _, err := b.status(ctx)
	return s, err
}

// status is Status, with the disks.
func (b *Backend) status(ctx context.Context) (s Status, disks []OSD, err error) {
	s = Status{ID: b.opt.ID, Maintenance: b.work.Stats(), Client: b.Client.Stats()}
	var all health.Backend
	all.Groups = b.groupsNow()
	answers := true // the managers'
	for i := range all.Groups {
		is := all.Groups[i].Judge()
		s.Groups = append(s.Groups, Group{Name: all.Groups[i].Name, State: is.State, Reason: is.Reason})
		answers = answers && !(is.State == health.Failed && all.Groups[i].Reads)
	}
	if answers {
		disks, err = b.OSDs(ctx)
	} else {
		disks = b.fleetOSDs(ctx)
	}
	if err != nil {
		return s, nil, err
	}
	gone := b.addDisks(&s, &all, disks)
	if answers {
		if err := b.addObjects(ctx, &s, &all, gone); err != nil {
			return s, nil, err
		}
		all.NoRoom = b.noRoom(ctx, disks)
	}
	s.Failed, all.Example = b.work.Failed()
	all.Failed, all.NoPlace = s.Failed, s.Maintenance.NoPlace
	if err := b.mayDelete(); err != nil {
		all.Suspended = err.Error()
	}
	if err := b.work.Alarm(); err != nil {
		all.Alarms = append(all.Alarms, err.Error())
	}
	is := all.Judge()
	s.Health, s.Reasons = is.State, is.Reasons
	return s, disks, nil
}

// groupsNow is what is known of the groups: the managers', and whose else there are.
func (b *Backend) groupsNow() []health.Group {
	var list []health.Group
	older := !b.groups.Suspended().IsZero()
	for _, name := range b.groups.Names() {
		node := b.groups.Node(name)
		g := health.Group{Name: name, Waits: node.Stats().Full, Older: older}
		g.Reads = slices.ContainsFunc(Specs(), func(s groups.Spec) bool { return s.Name == name })
		if err := node.Err(); err != nil {
			g.Failed = err.Error()
		}
		list = append(list, g)
	}
	return list
}

// addDisks enters the disks, and returns those of which nothing can be read now.
func (b *Backend) addDisks(s *Status, all *health.Backend, disks []OSD) (gone map[uint64]bool) {
	gone = make(map[uint64]bool)
	var rooms []health.Room
	on := make(map[uint64]bool)
	for _, d := range disks {
		all.Disks = append(all.Disks, health.DiskNamed{Number: d.Number, Place: d.Dir, Disk: d.known})
		if d.State != health.Lost {
			s.Disks++
		}
		if d.is.Gone {
			s.Missing++
			gone[d.Number] = true
			continue
		}
		rooms = append(rooms, health.Room{Used: d.Used, Capacity: d.Capacity, Shared: d.shared})
		if d.shared == 0 {
			s.FileSystems++
		}
		on[d.shared] = d.shared != 0
	}
	for _, shared := range on {
		if shared {
			s.FileSystems++
		}
	}
	s.Used, s.Capacity = health.Total(rooms)
	s.Scrub = b.scrubOfAll(disks)
	return gone
}

// addObjects enters what the managers know of namespaces and objects.
func (b *Backend) addObjects(ctx context.Context, s *Status, all *health.Backend, gone map[uint64]bool) error {
	spaces, unknown, err := b.namespaces(ctx)
	if err != nil {
		return err
	}
	lost, err := b.lostNamespaces(ctx, spaces, unknown)
	if err != nil {
		return err
	}
	all.Namespaces = lost
	waiting, suspects, least, err := b.suspects(ctx, gone)
	if err != nil {
		return err
	}
	all.Waiting = suspects
	s.MayDie = max(least, 0) // of those; what they cannot bear is in Failed
	for i := range spaces {
		n := &spaces[i]
		s.Namespaces++
		s.Objects, s.Size, s.Stored = s.Objects+n.Objects, s.Size+n.Size, s.Stored+n.Stored
		of, err := b.judged(ctx, n, gone, waiting[n.Number])
		if err != nil {
			return err
		}
		all.Namespaces = append(all.Namespaces, of)
		s.Narrow += of.Narrow
		if of.Coded {
			s.MayDie = min(s.MayDie, of.MayLose)
		}
	}
	if s.MayDie == math.MaxInt { // nothing is stored yet
		s.MayDie = b.promise(ctx)
	}
	return nil
}

// judged is what is known of a namespace, and enters in it how it is.
func (b *Backend) judged(ctx context.Context, n *Namespace, gone map[uint64]bool, waiting uint64) (of health.Namespace, err error) {
	of = health.Namespace{Name: n.Name, Waiting: waiting}
	for _, k := range n.Buckets {
		of.Coded = of.Coded || k.K > 0
		if k.K > 0 && !k.Full() {
			of.Narrow += k.Objects
		}
	}
	for _, u := range n.OSDs {
		of.Spread = of.Spread || gone[u.OSD] && u.Fragments > 0
	}
	if of.MayLose, err = b.mayLose(ctx, n, gone); err != nil {
		return of, fmt.Errorf("namespace %s: %w", n.Name, err)
	}
	is := of.Judge()
	n.State, n.Reason = is.State, is.Reason
	return of, nil
}

// goneNow is the disks of which nothing can be read, without asking any.
func (b *Backend) goneNow(n *Namespace) map[uint64]bool {
	gone := make(map[uint64]bool)
	for _, u := range n.OSDs {
		if _, there := b.fleet.Alive(u.OSD); !there {
			gone[u.OSD] = true
		}
	}
	return gone
}

// promise is how many disks may die of an object that is stored now.
func (b *Backend) promise(ctx context.Context) int {
	p, err := b.Preset(ctx, "")
	if err != nil {
		return 0
	}
	i, width, ok := policy.Choose(p.Policies, b.fleet.Disks())
	if !ok {
		return 0
	}
	return width - int(p.Policies[i].K)
}

// noRoom says why nothing more can be put under the default preset, "" if something
// can.
func (b *Backend) noRoom(ctx context.Context, disks []OSD) string {
	p, err := b.Preset(ctx, "")
	if err != nil {
		return ""
	}
	takes := make(map[uint64]bool)
	for _, d := range disks {
		takes[d.Number] = d.is.Takes()
	}
	list := b.fleet.Disks()
	for i := range list {
		list[i].Failing = list[i].Failing || !takes[list[i].OSD]
	}
	if _, _, ok := policy.Choose(p.Policies, list); ok {
		return ""
	}
	return fmt.Sprintf("too few disks take what is written to keep any of the policies %s: writes get ENOSPC or wait; make room, bring disks back, or add one with `ovs alba osd add`", show(p.Policies))
}

// Namespaces returns all namespaces, in order of name.
func (b *Backend) Namespaces(ctx context.Context) ([]Namespace, error) {
	list, unknown, err := b.namespaces(ctx)
	for i := range list {
		if err == nil {
			_, err = b.judged(ctx, &list[i], b.goneNow(&list[i]), 0)
		}
	}
	for _, name := range unknown {
		n := Namespace{Name: name}
		is := (&health.Namespace{Name: name, NoNSM: true}).Judge()
		n.State, n.Reason = is.State, is.Reason
		list = append(list, n)
	}
	slices.SortFunc(list, func(a, b Namespace) int { return cmp.Compare(a.Name, b.Name) })
	return list, err
}

// namespaces returns all namespaces that both managers know, and the names of
// those that the NSM does not know. How they are is not in it.
func (b *Backend) namespaces(ctx context.Context) (list []Namespace, unknown []string, err error) {
	names, err := b.Client.ListNamespaces(ctx)
	if err != nil {
		return nil, nil, err
	}
	list = make([]Namespace, 0, len(names))
	for _, name := range names {
		n, err := b.namespace(ctx, name)
		switch {
		case err == nil:
			list = append(list, n)
		case !errors.Is(err, abm.ErrNamespaceNotFound):
			return nil, nil, err
		default:
			// Deleted since, being made just now, or lost.
			if rec, err := b.abm.Namespace(ctx, name, userfn.Consistent); err == nil && rec.State == abm.NamespaceActive {
				unknown = append(unknown, name)
			}
		}
	}
	return list, unknown, nil
}

// lostNamespaces returns those that somebody stands on and that a manager does not
// know.
func (b *Backend) lostNamespaces(ctx context.Context, there []Namespace, unknown []string) (lost []health.Namespace, err error) {
	for _, name := range unknown {
		lost = append(lost, health.Namespace{Name: name, NoNSM: true})
	}
	b.mu.Lock()
	expect := b.expect
	b.mu.Unlock()
	if expect == nil {
		return lost, nil
	}
	wanted, err := expect(ctx)
	if err != nil {
		return nil, err
	}
	for _, name := range wanted {
		known := slices.Contains(unknown, name) || slices.ContainsFunc(there, func(n Namespace) bool { return n.Name == name })
		if known {
			continue
		}
		if _, err := b.abm.Namespace(ctx, name, userfn.Consistent); errors.Is(err, abm.ErrNamespaceNotFound) {
			lost = append(lost, health.Namespace{Name: name, Wanted: true, NoABM: true})
		} else if err != nil {
			return nil, err
		}
	}
	return lost, nil
}

// Expect names who stands on the backend: of returns the namespaces that there
// must be. Status says which are not.
func (b *Backend) Expect(of func(context.Context) ([]string, error)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.expect = of
}

// NamespaceInfo returns one namespace.
func (b *Backend) NamespaceInfo(ctx context.Context, name string) (Namespace, error) {
	n, err := b.namespace(ctx, name)
	if err == nil {
		_, err = b.judged(ctx, &n, b.goneNow(&n), 0)
	}
	return n, err
}

// namespace is NamespaceInfo without how it is.
func (b *Backend) namespace(ctx context.Context, name string) (Namespace, error) {
	rec, err := b.abm.Namespace(ctx, name, userfn.Consistent)
	if err != nil {
		return Namespace{}, err
	}
	st, err := b.nsm.Statistics(ctx, rec.Number, userfn.Consistent)
	if err != nil {
		return Namespace{}, fmt.Errorf("namespace %s: %w", name, err)
	}
	return Namespace{
		Name: name, Number: rec.Number, Preset: rec.Preset, Host: rec.Host, Created: time.Unix(0, rec.Created).UTC(),
		Objects: st.Objects, Size: st.Size, Stored: st.Stored, Buckets: st.Buckets, OSDs: st.OSDs, Epochs: &st.Epochs,
	}, nil
}

// Objects calls fn for each object of a namespace whose name begins with prefix
// and is above after, in order of name, until fn returns false.
func (b *Backend) Objects(ctx context.Context, namespace, prefix, after string, fn func(Object) bool) error {
	rec, err := b.abm.Namespace(ctx, namespace, userfn.Consistent)
	if err != nil {
		return err
	}
	for {
		page, err := b.nsm.List(ctx, rec.Number, prefix, after, nsm.MaxPage, userfn.Consistent)
		if err != nil {
			return err
		}
		for i := range page {
			if !fn(b.describe(&page[i])) {
				return nil
			}
		}
		if len(page) < nsm.MaxPage {
			return nil
		}
		after = page[len(page)-1].Name
	}
}

func (b *Backend) describe(o *nsm.Object) Object {
	v := Object{
		Name: o.Name, ID: hex.EncodeToString(o.ID[:]), Size: o.Size, Stored: o.Stored(), Version: o.Version,
		Put: time.Unix(0, o.Time).UTC(), Policy: "inline", Full: true, State: health.OK,
	}
	if len(o.Chunks) > 0 {
		gone := make(map[uint64]bool)
		for _, c := range o.Chunks {
			for _, f := range c.Fragments {
				if _, there := b.fleet.Alive(f.OSD); !there {
					gone[f.OSD] = true
				}
			}
		}
		v.State = of(o, gone, nil).Judge()
		k := o.Bucket()
		v.Policy = fmt.Sprintf("%d,%d,%d,%d", o.Policy.K, o.Policy.M, o.Policy.C, o.Policy.X)
		v.Width, v.Full = int(k.Present), k.Full()
	}
	return v
}

// Object returns an object with its chunks and how their fragments are.
func (b *Backend) Object(ctx context.Context, namespace, name string) (Object, error) {
	rec, err := b.abm.Namespace(ctx, namespace, userfn.Consistent)
	if err != nil {
		return Object{}, err
	}
	o, err := b.nsm.Get(ctx, rec.Number, name, userfn.Consistent)
	if err != nil {
		return Object{}, err
	}
	v := b.describe(o)
	m, err := manifest.Decode(o.Manifest)
	if err != nil {
		return v, fmt.Errorf("manifest of object %s: %w", name, err)
	}
	least := math.MaxInt
	for i, c := range m.Chunks {
		k := Chunk{Plain: c.Plain, Stored: c.Stored}
		good := 0
		for j, f := range c.Fragments {
			ok, text := b.fragment(ctx, m, i, j).Judge()
			if ok {
				good++
			}
			k.Fragments = append(k.Fragments, Fragment{OSD: f.OSD, Key: m.Key(i, j).String(), Length: f.Length, State: text})
		}
		least = min(least, good)
		v.Chunks = append(v.Chunks, k)
	}
	if len(m.Chunks) > 0 { // asked, not only looked up
		v.State = health.Object{K: int(o.Policy.K), Width: o.Policy.Width(), Readable: least}.Judge()
	}
	return v, nil
}

// fragment says how a fragment is, without reading it.
func (b *Backend) fragment(ctx context.Context, m *manifest.Manifest, chunk, fragment int) health.Fragment {
	f := m.Chunks[chunk].Fragments[fragment]
	h := health.Fragment{Nowhere: f.OSD == 0, Want: f.Length}
	d := b.fleet.Disk(f.OSD)
	if h.Nowhere || d == nil {
		h.DiskLost = true
		return h
	}
	info, err := d.Stat(ctx, [][]byte{m.Key(chunk, fragment).Append(nil)})
	if err != nil {
		h.Err = err.Error()
		return h
	}
	h.Found, h.Size = info[0].Found, info[0].Size
	h.Bad = b.work.KnownBad(m.Namespace, m.Name, m.Object, chunk, fragment, f.OSD)
	return h
}

// Manifest returns the encoded manifest of an object.
func (b *Backend) Manifest(ctx context.Context, namespace, name string) ([]byte, error) {
	rec, err := b.abm.Namespace(ctx, namespace, userfn.Consistent)
	if err != nil {
		return nil, err
	}
	o, err := b.nsm.Get(ctx, rec.Number, name, userfn.Consistent)
	if err != nil {
		return nil, err
	}
	return o.Manifest, nil
}
