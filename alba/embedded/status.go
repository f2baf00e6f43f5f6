package embedded

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"openvstorage/alba/abm"
	"openvstorage/alba/client"
	"openvstorage/alba/fleet"
	"openvstorage/alba/maintenance"
	"openvstorage/alba/manifest"
	"openvstorage/alba/nsm"
	"openvstorage/alba/osd"

	"github.com/google/uuid"
)

// OSD is what people are told of a disk. Sizes are in bytes.
type OSD struct {
	Number    uint64    `json:"number"`
	ID        uuid.UUID `json:"id"`
	Dir       string    `json:"dir"`
	Node      string    `json:"node"`
	State     string    `json:"state"` // ok, slow, failing, missing, unopened, full, read-only, draining, lost
	Reason    string    `json:"reason,omitempty"`
	Since     time.Time `json:"since,omitzero"` // when that was first seen, of slow and failing
	Used      uint64    `json:"used"`
	Capacity  uint64    `json:"capacity"`
	Fragments uint64    `json:"fragments"` // of objects
	Bytes     uint64    `json:"bytes"`     // of those
	Obsolete  uint64    `json:"obsolete"`  // fragments that are to be deleted
	Replaces  uint64    `json:"replaces,omitempty"`
	Reads     uint64    `json:"reads"` // since the start
	Writes    uint64    `json:"writes"`
	Errors    uint64    `json:"errors"`
	Corrupt   uint64    `json:"corrupt"`
}

// Health of a backend.
const (
	HealthOK       = "ok"
	HealthDegraded = "degraded"   // something is missing, nothing is lost
	HealthBad      = "unreadable" // something cannot be read
)

// Status is the state of a backend.
type Status struct {
	ID         uuid.UUID `json:"id"`
	Health     string    `json:"health"`
	Reasons    []string  `json:"reasons,omitempty"`
	Disks      int       `json:"disks"`
	Missing    int       `json:"missing"`
	Used       uint64    `json:"used"` // of the disks that are there
	Capacity   uint64    `json:"capacity"`
	Namespaces int       `json:"namespaces"`
	Objects    uint64    `json:"objects"`
	Size       uint64    `json:"size"`   // bytes of objects
	Stored     uint64    `json:"stored"` // bytes of their fragments
	// Narrow is the number of objects below full width.
	Narrow uint64 `json:"below_full_width"`
	// MayDie is how many more disks may die, whichever they are, before an
	// object is lost; below zero, so many disks are missing to read all.
	MayDie      int               `json:"disks_that_may_die"`
	Maintenance maintenance.Stats `json:"maintenance"`
	Client      client.Stats      `json:"client"`
}

// Namespace is what people are told of a namespace.
type Namespace struct {
	Name    string            `json:"name"`
	Number  uint64            `json:"number"`
	Preset  string            `json:"preset"`
	Host    uint64            `json:"nsm_host"`
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
	Chunks  []Chunk   `json:"chunks,omitempty"`
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

// OSDs returns all disks that are not forgotten, in order of number.
func (b *Backend) OSDs(ctx context.Context) ([]OSD, error) {
	all, err := maintenance.AllOSDs(ctx, b.abm)
	if err != nil {
		return nil, err
	}
	byNumber := make(map[uint64]nsm.OSD)
	for after := uint64(0); ; {
		page, err := b.nsm.OSDs(ctx, after, nsm.MaxKeys, nsm.Consistent)
		if err != nil {
			return nil, err
		}
		for _, o := range page {
			byNumber[o.Number] = o
			after = o.Number
		}
		if len(page) < nsm.MaxKeys {
			break
		}
	}
	list := make([]OSD, 0, len(all))
	for _, o := range all {
		if o.Number != 0 {
			list = append(list, b.osd(ctx, o, byNumber[o.Number]))
		}
	}
	sortOSDs(list)
	return list, nil
}

func (b *Backend) osd(ctx context.Context, o abm.OSD, held nsm.OSD) OSD {
	v := OSD{
		Number: o.Number, ID: uuid.UUID(o.LongID), Dir: b.path(string(o.Endpoint)), Node: o.Node, State: "ok", Replaces: o.Replaces,
		Capacity: o.Capacity, Used: o.Used, Fragments: held.Live.Fragments, Bytes: held.Live.Bytes, Obsolete: held.Obsolete.Fragments,
	}
	if o.State == abm.OSDLost {
		v.State, v.Reason = "lost", "it was given up; what it held is made again elsewhere"
		return v
	}
	d := b.fleet.Disk(o.Number)
	if d == nil {
		v.State = "missing"
		return v
	}
	c := d.Counts()
	v.Reads, v.Writes, v.Errors, v.Corrupt = c.Reads, c.Writes, c.ReadErrors+c.WriteErrors, c.Corrupt
	err := d.Refresh(ctx)
	u, is := d.Known(), d.Condition()
	if err == nil {
		v.Used, v.Capacity = u.Used, u.Capacity
	}
	switch {
	case is.State == fleet.Failing && d.Attached() == nil:
		v.State, v.Reason, v.Since = "failing", is.Reason, is.Since
	case errors.Is(err, fleet.ErrNotAnswering):
		v.State, v.Reason = "failing", err.Error()
		if why := d.Reason(); why != nil {
			v.Reason = why.Error()
		}
	case errors.Is(err, fleet.ErrMissing):
		v.State, v.Reason = "missing", err.Error()
		if errors.Is(err, fleet.ErrUnopened) {
			v.State = "unopened"
		}
		if why := d.Reason(); why != nil {
			v.Reason = why.Error() // without what disk it is, which stands beside it
		}
	case err != nil:
		v.State, v.Reason = "failing", err.Error()
	case u.ReadOnly != nil:
		v.State, v.Reason = "read-only", u.ReadOnly.Error()
	case u.Full:
		v.State = "full"
	case is.State == fleet.Slow:
		v.State, v.Reason, v.Since = "slow", is.Reason, is.Since
	case o.State == abm.OSDDraining:
		v.State, v.Reason = "draining", fmt.Sprintf("%d fragments are to be moved", held.Live.Fragments)
	}
	return v
}

// OSD returns one disk.
func (b *Backend) OSD(ctx context.Context, number uint64) (OSD, error) {
	all, err := b.OSDs(ctx)
	for _, o := range all {
		if o.Number == number {
			return o, nil
		}
	}
	if err == nil {
		err = fmt.Errorf("disk %d: %w", number, ErrNoOSD)
	}
	return OSD{}, err
}

// Status returns the state of the whole.
func (b *Backend) Status(ctx context.Context) (Status, error) {
	s := Status{ID: b.opt.ID, Health: HealthOK, Maintenance: b.work.Stats(), Client: b.Client.Stats(), MayDie: int(^uint(0) >> 1)}
	disks, err := b.OSDs(ctx)
	if err != nil {
		return s, err
	}
	gone := 0 // disks that hold fragments which cannot be read now
	for _, d := range disks {
		s.Disks++
		switch d.State {
		case "ok", "draining":
			s.Used, s.Capacity = s.Used+d.Used, s.Capacity+d.Capacity
			continue
		case "full", "read-only", "slow":
			s.Used, s.Capacity = s.Used+d.Used, s.Capacity+d.Capacity
		case "lost":
			s.Disks--
			fallthrough
		default:
			s.Missing++
			if d.Fragments > 0 {
				gone++
			}
		}
		why := d.Reason
		if !d.Since.IsZero() {
			why += ", since " + d.Since.UTC().Format(time.RFC3339)
		}
		s.Reasons = append(s.Reasons, fmt.Sprintf("disk %d (%s) is %s: %s", d.Number, d.Dir, d.State, why))
	}
	spaces, unknown, err := b.namespaces(ctx)
	if err != nil {
		return s, err
	}
	lost, err := b.lostNamespaces(ctx, spaces, unknown)
	if err != nil {
		return s, err
	}
	for _, n := range spaces {
		s.Namespaces++
		s.Objects, s.Size, s.Stored = s.Objects+n.Objects, s.Size+n.Size, s.Stored+n.Stored
		for _, k := range n.Buckets {
			if k.K == 0 {
				continue // inline: as safe as the NSM
			}
			if !k.Full() {
				s.Narrow += k.Objects
			}
			s.MayDie = min(s.MayDie, int(k.Present)-int(k.K)-gone)
		}
	}
	if s.MayDie > s.Disks { // nothing is stored yet
		s.MayDie = b.promise(ctx)
	}
	if s.Narrow > 0 {
		s.Reasons = append(s.Reasons, fmt.Sprintf("%d objects are below full width", s.Narrow))
	}
	for _, why := range []error{b.mayDelete(), b.work.Alarm()} {
		if why != nil {
			s.Reasons = append(s.Reasons, why.Error())
		}
	}
	s.Reasons = append(s.Reasons, lost...)
	switch {
	case s.MayDie < 0 || len(lost) > 0:
		s.Health = HealthBad
	case len(s.Reasons) > 0:
		s.Health = HealthDegraded
	}
	return s, nil
}

// promise is how many disks may die of an object that is stored now.
func (b *Backend) promise(ctx context.Context) int {
	p, err := b.Preset(ctx, "")
	if err != nil {
		return 0
	}
	return int(p.Policies[0].M)
}

// Namespaces returns all namespaces, in order of name.
func (b *Backend) Namespaces(ctx context.Context) ([]Namespace, error) {
	list, _, err := b.namespaces(ctx)
	return list, err
}

// namespaces returns all namespaces that both managers know, and the names of
// those that the NSM does not know.
func (b *Backend) namespaces(ctx context.Context) (list []Namespace, unknown []string, err error) {
	names, err := b.Client.ListNamespaces(ctx)
	if err != nil {
		return nil, nil, err
	}
	list = make([]Namespace, 0, len(names))
	for _, name := range names {
		n, err := b.NamespaceInfo(ctx, name)
		switch {
		case err == nil:
			list = append(list, n)
		case !errors.Is(err, abm.ErrNamespaceNotFound):
			return nil, nil, err
		default:
			// Deleted since, being made just now, or lost.
			if rec, err := b.abm.Namespace(ctx, name, abm.Consistent); err == nil && rec.State == abm.NamespaceActive {
				unknown = append(unknown, name)
			}
		}
	}
	return list, unknown, nil
}

// lostNamespaces says which namespaces somebody stands on and cannot be read.
func (b *Backend) lostNamespaces(ctx context.Context, there []Namespace, unknown []string) (reasons []string, err error) {
	for _, name := range unknown {
		reasons = append(reasons, fmt.Sprintf("namespace %s is not known to the NSM: none of its objects can be read; stop, and restore %s/arakoon from one copy", name, b.opt.Dir))
	}
	b.mu.Lock()
	expect := b.expect
	b.mu.Unlock()
	if expect == nil {
		return reasons, nil
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
		if _, err := b.abm.Namespace(ctx, name, abm.Consistent); errors.Is(err, abm.ErrNamespaceNotFound) {
			reasons = append(reasons, fmt.Sprintf("namespace %s is not known to the ABM, and there is a vDisk in it: stop, and restore %s/arakoon from one copy", name, b.opt.Dir))
		} else if err != nil {
			return nil, err
		}
	}
	return reasons, nil
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
	rec, err := b.abm.Namespace(ctx, name, abm.Consistent)
	if err != nil {
		return Namespace{}, err
	}
	st, err := b.nsm.Statistics(ctx, rec.Number, nsm.Consistent)
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
	rec, err := b.abm.Namespace(ctx, namespace, abm.Consistent)
	if err != nil {
		return err
	}
	for {
		page, err := b.nsm.List(ctx, rec.Number, prefix, after, nsm.MaxPage, nsm.Consistent)
		if err != nil {
			return err
		}
		for i := range page {
			if !fn(describe(&page[i])) {
				return nil
			}
		}
		if len(page) < nsm.MaxPage {
			return nil
		}
		after = page[len(page)-1].Name
	}
}

func describe(o *nsm.Object) Object {
	v := Object{
		Name: o.Name, ID: hex.EncodeToString(o.ID[:]), Size: o.Size, Stored: o.Stored(), Version: o.Version,
		Put: time.Unix(0, o.Time).UTC(), Policy: "inline", Full: true,
	}
	if len(o.Chunks) > 0 {
		k := o.Bucket()
		v.Policy = fmt.Sprintf("%d,%d,%d,%d", o.Policy.K, o.Policy.M, o.Policy.C, o.Policy.X)
		v.Width, v.Full = int(k.Present), k.Full()
	}
	return v
}

// Object returns an object with its chunks and how their fragments are.
func (b *Backend) Object(ctx context.Context, namespace, name string) (Object, error) {
	rec, err := b.abm.Namespace(ctx, namespace, abm.Consistent)
	if err != nil {
		return Object{}, err
	}
	o, err := b.nsm.Get(ctx, rec.Number, name, nsm.Consistent)
	if err != nil {
		return Object{}, err
	}
	v := describe(o)
	m, err := manifest.Decode(o.Manifest)
	if err != nil {
		return v, fmt.Errorf("manifest of object %s: %w", name, err)
	}
	for i, c := range m.Chunks {
		k := Chunk{Plain: c.Plain, Stored: c.Stored}
		for j, f := range c.Fragments {
			k.Fragments = append(k.Fragments, Fragment{OSD: f.OSD, Key: m.Key(i, j).String(), Length: f.Length, State: b.state(ctx, m, i, j)})
		}
		v.Chunks = append(v.Chunks, k)
	}
	return v, nil
}

// state says how a fragment is, without reading it.
func (b *Backend) state(ctx context.Context, m *manifest.Manifest, chunk, fragment int) string {
	f := m.Chunks[chunk].Fragments[fragment]
	if f.OSD == 0 {
		return "not stored yet"
	}
	d := b.fleet.Disk(f.OSD)
	if d == nil {
		return "its disk is lost"
	}
	info, err := d.Stat(ctx, [][]byte{m.Key(chunk, fragment).Append(nil)})
	switch {
	case err != nil:
		return err.Error()
	case !info[0].Found:
		return osd.ErrNotFound.Error()
	case info[0].Size != f.Length:
		return fmt.Sprintf("it has %d bytes", info[0].Size)
	}
	return "ok"
}

// Manifest returns the encoded manifest of an object.
func (b *Backend) Manifest(ctx context.Context, namespace, name string) ([]byte, error) {
	rec, err := b.abm.Namespace(ctx, namespace, abm.Consistent)
	if err != nil {
		return nil, err
	}
	o, err := b.nsm.Get(ctx, rec.Number, name, nsm.Consistent)
	if err != nil {
		return nil, err
	}
	return o.Manifest, nil
}
