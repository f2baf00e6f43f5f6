package embedded

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"openvstorage/alba/cluster"
	"openvstorage/alba/fleet"
	"openvstorage/alba/osd"
	"openvstorage/alba/policy"
	"openvstorage/internal/datadir"
	"openvstorage/internal/disk"
	"openvstorage/internal/disk/crashdisk"
	"openvstorage/internal/generation"

	"github.com/google/uuid"
)

// machines are a backend with one disk, and hosts beside it that have one each. What is a
// connection elsewhere is a call here.
type machines struct {
	t       *testing.T
	backend *Backend
	abm     cluster.Node
	hosts   map[uuid.UUID]*machine
}

type machine struct {
	id      uuid.UUID
	fs      *crashdisk.FS
	starts  uint64
	history generation.History
	now     atomic.Pointer[HostDisks] // nil: it is off
	stop    func() error
}

func newMachines(t *testing.T, hosts int) *machines {
	m := &machines{t: t, hosts: make(map[uuid.UUID]*machine)}
	o := options(newDisk(t))
	o.ASDs, o.ReopenEvery = 1, 10*time.Millisecond
	o.Preset.Policies = []policy.Policy{{K: 2, M: 1, C: 2, X: 1}}
	o.Node = func(name string, n cluster.Node) cluster.Node {
		if name == "abm" {
			m.abm = n
		}
		return n
	}
	o.Remote = m.connect
	for range hosts {
		h := &machine{id: uuid.New(), fs: newDisk(t)}
		m.hosts[h.id] = h
	}
	b, err := Open(ctx, o)
	must(t, err)
	m.backend = b
	t.Cleanup(func() {
		for _, h := range m.hosts {
			m.off(h)
		}
		must(t, b.Close())
	})
	return m
}

// options are those of a start of a host, which counts a generation.
func (m *machines) options(h *machine, dirs ...string) HostOptions {
	h.starts++
	h.history = h.history.Add(generation.Mark{Number: h.starts, Start: h.starts})
	record := datadir.Record{ID: h.id, Generation: h.starts, History: h.history}
	return HostOptions{
		FS: h.fs, Dir: "/data", Backend: testID, Host: h.id, Zone: "room " + h.id.String()[:4], ABM: m.abm, Dirs: dirs,
		Record: func() datadir.Record { return record }, SegmentBytes: 1 << 20, Every: 10 * time.Millisecond, Logger: options(h.fs).Logger,
	}
}

// on starts a host.
func (m *machines) on(h *machine, o HostOptions) {
	d := NewHostDisks(o)
	running, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- d.Run(running) }()
	h.stop = func() error { cancel(); return <-ended }
	h.now.Store(d)
}

func (m *machines) off(h *machine) {
	if h.now.Swap(nil) != nil {
		must(m.t, h.stop())
	}
}

// await polls, as whoever is waited for has no other way to tell.
func (m *machines) await(what string, holds func() bool) {
	m.t.Helper()
	for end := time.Now().Add(time.Minute); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			m.t.Fatalf("in vain: %s", what)
		}
	}
}

// of is the disk of a host as the backend sees it; nil: it does not know it.
func (m *machines) of(h *machine) *fleet.Disk {
	for _, d := range m.backend.fleet.All() {
		if d.Node == h.id.String() {
			return d
		}
	}
	return nil
}

// there waits until the disk of a host is there. The backend's background is the test's.
func (m *machines) there(h *machine) {
	m.t.Helper()
	m.await("the disk of a host is there", func() bool {
		(&elsewhere{of: m.backend}).follow(ctx)
		d := m.of(h)
		return d != nil && d.Missing() == nil
	})
}

// connect is Options.Remote.
func (m *machines) connect(node string, id uuid.UUID) (Remote, error) {
	host, err := uuid.Parse(node)
	if err != nil || m.hosts[host] == nil {
		return nil, fmt.Errorf("host %s is not known", node)
	}
	return &called{of: m.hosts[host], id: id}, nil
}

// called is a disk that is called in another part of this process.
type called struct {
	of *machine
	id uuid.UUID
}

func (c *called) there() (osd.OSD, error) {
	if h := c.of.now.Load(); h != nil {
		if o, ok := h.Served(c.id); ok {
			return o, nil
		}
	}
	return nil, osd.ErrUnreachable
}

func (c *called) ID() uuid.UUID { return c.id }
func (c *called) Close() error  { return nil }

func (c *called) Ready(context.Context) error {
	_, err := c.there()
	return err
}

func (c *called) Apply(ctx context.Context, asserts []osd.Assert, updates []osd.Update) error {
	o, err := c.there()
	if err != nil {
		return err
	}
	return o.Apply(ctx, asserts, updates)
}

func (c *called) Read(ctx context.Context, key []byte, off uint32, p []byte, crcs []uint32) error {
	o, err := c.there()
	if err != nil {
		return err
	}
	return o.Read(ctx, key, off, p, crcs)
}

func (c *called) Stat(ctx context.Context, keys [][]byte) ([]osd.Info, error) {
	o, err := c.there()
	if err != nil {
		return nil, err
	}
	return o.Stat(ctx, keys)
}

func (c *called) Range(ctx context.Context, first, last []byte, limit int) ([]osd.Info, error) {
	o, err := c.there()
	if err != nil {
		return nil, err
	}
	return o.Range(ctx, first, last, limit)
}

func (c *called) Verify(ctx context.Context, after []byte, limit int) ([]osd.Bad, []byte, error) {
	o, err := c.there()
	if err != nil {
		return nil, nil, err
	}
	return o.Verify(ctx, after, limit)
}

func (c *called) Usage(ctx context.Context) (osd.Usage, error) {
	o, err := c.there()
	if err != nil {
		return osd.Usage{}, err
	}
	return o.Usage(ctx)
}

// Disks of other hosts hold one fragment of each object. A host that goes away takes nothing
// that cannot be read, objects are put without it, and are whole again after it is back.
func TestDisksOfOtherHosts(t *testing.T) {
	m := newMachines(t, 2)
	var away *machine
	for _, h := range m.hosts {
		m.on(h, m.options(h, "/disk"))
		m.there(h)
		away = h
	}
	d := m.of(away)
	if d.Zone() != "room "+away.id.String()[:4] {
		t.Errorf("the disk is in zone %q", d.Zone())
	}
	fill(t, m.backend, "n", 0, 8)
	settled(t, m.backend)

	m.off(away)
	m.await("the disk is missing", func() bool { return d.Missing() != nil })
	if why := fmt.Sprint(d.Reason()); !strings.Contains(why, "host "+away.id.String()) || !errors.Is(d.Reason(), osd.ErrUnreachable) {
		t.Errorf("the reason does not say which host is away: %s", why)
	}
	holds(t, m.backend, "n", 8)
	fill(t, m.backend, "n", 8, 16)
	holds(t, m.backend, "n", 16)
	if s, err := m.backend.Status(ctx); err != nil || s.Missing != 1 || s.Disks != 3 || s.Narrow == 0 {
		t.Errorf("while a host is away: %+v, %v", s, err)
	}

	m.on(away, m.options(away)) // the ABM says which directory it has
	m.there(away)
	settled(t, m.backend)
	holds(t, m.backend, "n", 16)

	// An older copy of the host's data directory opens no disk that has seen more.
	m.off(away)
	o := m.options(away)
	old := datadir.Record{ID: away.id, Generation: 1, History: away.history[:1]}
	o.Record = func() datadir.Record { return old }
	m.on(away, o)
	m.await("the older copy is refused", func() bool {
		own := away.now.Load().fleet.Disk(d.Number)
		return own != nil && errors.Is(own.Reason(), ErrOlder)
	})
	if _, ok := away.now.Load().Served(d.UUID); ok {
		t.Error("a disk is served by an older copy of the data directory")
	}
	m.await("the backend has seen that", func() bool { return d.Missing() != nil })
	m.off(away)
	m.on(away, m.options(away))
	m.there(away)
	settled(t, m.backend)
}

// A directory that is not for a disk of this host ends the start, and nothing is changed in it.
func TestHostDisksAreRefused(t *testing.T) {
	m := newMachines(t, 2)
	var two []*machine
	for _, h := range m.hosts {
		m.on(h, m.options(h, "/disk"))
		m.there(h)
		m.off(h)
		two = append(two, h)
	}
	h, other := two[0], two[1]
	put := func(fs disk.FS, name string) {
		f, err := fs.OpenFile(name, disk.Write|disk.Create, 0o600)
		must(t, err)
		must(t, f.Close())
	}
	must(t, h.fs.MkdirAll("/full", 0o700))
	put(h.fs, "/full/letter")
	for _, c := range []struct {
		what, dir, says string
		change          func(o *HostOptions)
		want            error
	}{
		{"another host's disk", "/disk", "put it back into that host", func(o *HostOptions) { o.Host = other.id }, ErrNotOurs},
		{"another backend's disk", "/disk", "belongs to backend", func(o *HostOptions) { o.Backend = uuid.New() }, ErrNotOurs},
		{"a directory that holds something", "/full", "not empty", func(*HostOptions) {}, ErrNotOurs},
		{"a mount point", "/new", "mount it", func(o *HostOptions) {
			o.Absent = func(string) (string, string, bool) { return "/new", "/etc/fstab", true }
		}, ErrUnmounted},
		{"the disk in another place", "/taken", "mount it there", func(*HostOptions) { move(t, h.fs, "/disk", "/taken") }, ErrNotOurs},
	} {
		o := m.options(h, c.dir)
		c.change(&o)
		before := inside(t, h.fs, c.dir)
		bounded, cancel := context.WithTimeout(ctx, time.Minute)
		err := NewHostDisks(o).Run(bounded)
		cancel()
		if !errors.Is(err, c.want) || !strings.Contains(fmt.Sprint(err), c.says) {
			t.Errorf("%s: %v", c.what, err)
		}
		if after := inside(t, h.fs, c.dir); after != before {
			t.Errorf("%s: %s became %s", c.what, before, after)
		}
	}
	// The place of a disk is empty: that disk is missing, nothing is made there, and the host goes
	// on, with its --asd too. When the disk is back it is there again.
	must(t, h.fs.MkdirAll("/disk", 0o700))
	said := make(saying, 64)
	o := m.options(h, "/disk")
	o.Logger = slog.New(slog.NewTextHandler(said, nil))
	m.on(h, o)
	for line := range said {
		if strings.Contains(line, "not where it should be") {
			break
		}
	}
	if got := inside(t, h.fs, "/disk"); got != "" {
		t.Errorf("in the empty place of a disk there is %s", got)
	}
	m.off(h) // it has not ended by itself
	must(t, h.fs.Remove("/disk"))
	move(t, h.fs, "/taken", "/disk")
	for _, h := range two {
		m.on(h, m.options(h))
		m.there(h)
	}
	if n := len(m.backend.fleet.All()); n != 3 {
		t.Errorf("the backend has %d disks", n)
	}
}

// saying is what is logged, as far as it is looked at.
type saying chan string

func (s saying) Write(p []byte) (int, error) {
	select {
	case s <- string(p):
	default:
	}
	return len(p), nil
}

// inside are the names in a directory.
func inside(t *testing.T, fs disk.FS, dir string) string {
	names, err := fs.ReadDir(dir)
	if err != nil {
		return path.Base(dir) + " is absent"
	}
	return strings.Join(names, " ")
}
