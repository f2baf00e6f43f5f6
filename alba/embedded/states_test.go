package embedded

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"openvstorage/alba/client"
	"openvstorage/alba/health"
	"openvstorage/alba/manifest"
	"openvstorage/alba/nsm"
	"openvstorage/alba/nsm/userfn"
	"openvstorage/alba/osd"
	"openvstorage/backend"
	"openvstorage/internal/disk"
	"openvstorage/internal/disk/faultdisk"
)

// status demands a state of the backend, and a reason if it is not ok.
func status(t *testing.T, b *Backend, want health.State, reasons ...string) Status {
	t.Helper()
	s, err := b.Status(ctx)
	must(t, err)
	if s.Health != want || (want == health.OK) != (len(s.Reasons) == 0) {
		t.Errorf("health is %s, not %s: %v, %d may die", s.Health, want, s.Reasons, s.MayDie)
	}
	for _, r := range reasons {
		if !strings.Contains(strings.Join(s.Reasons, "\n"), r) {
			t.Errorf("no reason says %q: %v", r, s.Reasons)
		}
	}
	return s
}

// disks demands the states of the first disks.
func diskStates(t *testing.T, b *Backend, want ...health.State) []OSD {
	t.Helper()
	list, err := b.OSDs(ctx)
	must(t, err)
	for i, w := range want {
		if list[i].State != w || (w == health.OK) != (list[i].Reason == "") {
			t.Errorf("disk %d is %s (%s), not %s", list[i].Number, list[i].State, list[i].Reason, w)
		}
	}
	return list
}

// Writes that no disk has room for: all are full and say so, what they refused is no
// error of theirs; with room all are well.
func TestFullIsShown(t *testing.T) {
	for kind, limit := range map[string]func(*faultdisk.FS) (remove func()){
		"a file system that is full": func(fs *faultdisk.FS) func() { return fs.Limit("/data/asd", 1<<20).Remove },
		"a quota that statfs does not know": func(fs *faultdisk.FS) func() {
			fs.Inject(faultdisk.Rule{Ops: faultdisk.Write | faultdisk.Prewrite, Path: "/data/asd/...", Err: syscall.EDQUOT})
			return fs.Clear
		},
	} {
		t.Run(kind, func(t *testing.T) { fullIsShown(t, limit) })
	}
}

func fullIsShown(t *testing.T, limit func(*faultdisk.FS) (remove func())) {
	fs := faultdisk.New(newDisk(t))
	b := open(t, fs)
	defer func() { must(t, b.Close()) }()
	fill(t, b, "ns", 0, 4)
	diskStates(t, b, health.OK, health.OK, health.OK)
	remove := limit(fs)
	var err error
	n := 4
	for ; err == nil && n < 400; n++ {
		err = b.Namespace("ns").Put(ctx, name(n), data(n))
	}
	if !errors.Is(err, backend.ErrNoSpace) {
		t.Fatal(err)
	}
	for range 3 {
		b.ReopenDisks(ctx) // what disks say of their room does not know of the limit
		_ = b.Namespace("ns").Put(ctx, name(n), data(n))
		b.Client.Settle()
		refused := uint64(0)
		for _, d := range diskStates(t, b, health.Full, health.Full, health.Full) {
			if refused += d.Refused; d.Errors != 0 {
				t.Errorf("%+v", d)
			}
		}
		if refused == 0 {
			t.Error("no write was refused")
		}
		status(t, b, health.Degraded, "disk 1 ", "is full", "too few disks take")
	}
	remove()
	b.ReopenDisks(ctx)
	fill(t, b, "full", 0, 8)
	diskStates(t, b, health.OK, health.OK, health.OK)
	must(t, b.DeleteNamespace(ctx, "ns"))
	settled(t, b)
}

// A disk that has room for small things only is full before it has refused any.
func TestFullForAFragment(t *testing.T) {
	const mib = uint64(1) << 20
	fs := &volumes{FS: newDisk(t)}
	fs.set(3<<10*mib, 3<<10*mib, 3<<10*mib)
	o := options(fs)
	o.Preset.ChunkSize, o.Preset.ObjectMax = 16<<20, 64<<20
	b, err := Open(ctx, o)
	must(t, err)
	defer func() { must(t, b.Close()) }()
	diskStates(t, b, health.OK, health.OK, health.OK)
	fs.set(3<<10*mib, 7*mib, 3<<10*mib)
	d := diskStates(t, b, health.OK, health.Full, health.OK)[1]
	if !strings.Contains(d.Reason, "a fragment may have") {
		t.Error(d.Reason)
	}
	status(t, b, health.Degraded, "disk 2 ")
}

// One disk is away while writes go on: all can be read, and status does not say that
// anything cannot; nor that another may die.
func TestWritesWhileAway(t *testing.T) {
	mem := newDisk(t)
	b := open(t, mem)
	fill(t, b, "ns", 0, 8)
	if s := status(t, b, health.OK); s.MayDie != 1 {
		t.Errorf("%d may die", s.MayDie)
	}
	must(t, b.Close())
	take(t, mem, 1)
	b = open(t, mem)
	if s := status(t, b, health.Degraded, "disk 2 "); s.MayDie != 0 || s.Missing != 1 {
		t.Errorf("%d may die, %d are missing", s.MayDie, s.Missing)
	}
	fill(t, b, "ns", 8, 24)
	fill(t, b, "other", 0, 8)
	holds(t, b, "ns", 24)
	s := status(t, b, health.Degraded, "disk 2 ", "below full width")
	if s.MayDie != 0 || s.Narrow == 0 {
		t.Errorf("%d may die, %d are narrow", s.MayDie, s.Narrow)
	}
	list, err := b.Namespaces(ctx)
	must(t, err)
	for _, n := range list {
		if n.State != health.Degraded || n.Reason == "" {
			t.Errorf("namespace %s is %s: %s", n.Name, n.State, n.Reason)
		}
	}
	must(t, b.Objects(ctx, "ns", "", "", func(o Object) bool {
		if want := map[bool]health.State{true: health.OK, false: health.Degraded}[o.Policy == "inline"]; o.State != want {
			t.Errorf("object %s is %s", o.Name, o.State)
		}
		return true
	}))
	// All of it on the two that are there: one of these, and something is not.
	must(t, b.Close())
	take(t, mem, 2)
	b = open(t, mem)
	if s := status(t, b, health.Unreadable, "too few fragments"); s.MayDie != -1 {
		t.Errorf("%d may die", s.MayDie)
	}
	if n, err := b.NamespaceInfo(ctx, "other"); err != nil || n.State != health.Unreadable {
		t.Errorf("%+v, %v", n, err)
	}
	back(t, mem, 1)
	back(t, mem, 2)
	b.ReopenDisks(ctx)
	settled(t, b)
	must(t, b.Close())
}

// With disks gone that no object needs both of, status says what a look at each
// object says.
func TestMayDieIsCounted(t *testing.T) {
	mem := newDisk(t)
	o := options(mem)
	o.ASDs = 9
	b, err := Open(ctx, o)
	must(t, err)
	defer func() { must(t, b.Close()) }()
	fill(t, b, "ns", 0, 12)
	rec, err := b.abm.Namespace(ctx, "ns", userfn.Consistent)
	must(t, err)
	for i := range uint64(9) {
		for j := range i {
			gone := map[uint64]bool{i + 1: true, j + 1: true}
			want := 1
			page, err := b.nsm.List(ctx, rec.Number, "", "", nsm.MaxPage, userfn.Consistent)
			must(t, err)
			for k := range page {
				for _, c := range page[k].Chunks {
					there := 0
					for _, f := range c.Fragments {
						if !gone[f.OSD] {
							there++
						}
					}
					want = min(want, there-int(page[k].Policy.K))
				}
			}
			for n := range gone {
				b.fleet.Disk(n).Detach(errors.New("it was taken"))
			}
			state := health.Degraded
			if want < 0 {
				state = health.Unreadable
			}
			if s := status(t, b, state); s.MayDie != want {
				t.Errorf("without %v %d may die, and status says %d", gone, want, s.MayDie)
			}
			for n := range gone {
				b.fleet.Disk(n).Attach(b.asds.open[n].ASD)
			}
		}
	}
}

// drop has disks forget fragments of an object's first chunk.
func drop(t *testing.T, b *Backend, namespace, name string, fragments ...int) {
	t.Helper()
	rec, err := b.abm.Namespace(ctx, namespace, userfn.Consistent)
	must(t, err)
	o, err := b.nsm.Get(ctx, rec.Number, name, userfn.Consistent)
	must(t, err)
	m, err := manifest.Decode(o.Manifest)
	must(t, err)
	for _, i := range fragments {
		must(t, b.fleet.Disk(m.Chunks[0].Fragments[i].OSD).Apply(ctx, nil, []osd.Update{{Key: m.Key(0, i).Append(nil), Delete: true}}))
	}
}

// Fragments that are known to be absent are not ok until they are made again, and
// what cannot be made is unreadable until it is gone.
func TestAbsentIsShown(t *testing.T) {
	b := open(t, newDisk(t))
	defer func() { must(t, b.Close()) }()
	fill(t, b, "ns", 0, 8)
	w := b.Maintenance()
	drop(t, b, "ns", name(1), 0)
	if p, err := get(b, "ns", 1); err != nil || string(p) != string(data(1)) {
		t.Fatal(err) // made of the others, and reported
	}
	if s := status(t, b, health.Degraded, "known to be bad or absent"); s.MayDie != 0 {
		t.Errorf("%d may die", s.MayDie)
	}
	must(t, w.Repair(ctx))
	status(t, b, health.OK)

	// Two of three, found by nobody's read.
	drop(t, b, "ns", name(2), 0, 1)
	if err := w.FindAbsent(ctx); err == nil {
		t.Error("nothing to say about two fragments that are absent")
	}
	s := status(t, b, health.Unreadable, name(2))
	if s.Failed != 1 || s.MayDie > 0 {
		t.Errorf("%d failed, %d may die", s.Failed, s.MayDie)
	}
	o, err := b.Object(ctx, "ns", name(2))
	must(t, err)
	if o.State != health.Unreadable || o.Chunks[0].Fragments[0].State != "its disk does not have it" {
		t.Errorf("%+v", o)
	}
	if _, err := get(b, "ns", 2); err == nil {
		t.Fatal("it was read")
	}
	must(t, b.Namespace("ns").Delete(ctx, []string{name(2)}, nil))
	must(t, w.Repair(ctx))
	status(t, b, health.OK)
}

// Reads that fail for good are not ok, whatever the disks say, for as long as they
// would.
func TestFailingReadsAreShown(t *testing.T) {
	for _, errno := range []syscall.Errno{syscall.EIO, syscall.ENOMEM, syscall.EACCES} {
		fs := faultdisk.New(newDisk(t))
		b := open(t, fs)
		fill(t, b, "ns", 0, 8)
		for i := range 2 {
			fs.Inject(faultdisk.Rule{Ops: faultdisk.Read | faultdisk.TryRead, Path: asdDir(i) + "/...", Err: errno})
		}
		failed := 0
		for i := range 8 {
			if _, err := get(b, "ns", i); err != nil {
				failed++
			}
		}
		if failed == 0 {
			t.Fatal("all was read")
		}
		if s := status(t, b, health.Unreadable, "could not be read"); s.Failed != uint64(failed) {
			t.Errorf("%v: %d of %d failed", errno, s.Failed, failed)
		}
		_ = b.Maintenance().Repair(ctx)
		status(t, b, health.Unreadable, "could not be read")
		fs.Clear()
		b.ReopenDisks(ctx)
		settled(t, b)
		holds(t, b, "ns", 8)
		must(t, b.Close())
	}
}

// mounted makes some ASDs' file system one that is mounted read-only.
type mounted struct {
	disk.FS
	readOnly atomic.Pointer[string]
	silent   atomic.Bool // it says so by refusing writes alone, as ext4 does after an error
}

func (m *mounted) on(name string) bool {
	dir := m.readOnly.Load()
	return dir != nil && (name == *dir || strings.HasPrefix(name, *dir+"/"))
}

func (m *mounted) Statfs(name string) (disk.Usage, error) {
	u, err := m.FS.Statfs(name)
	u.ReadOnly = m.on(name) && !m.silent.Load()
	return u, err
}

func (m *mounted) OpenFile(name string, flag disk.Flag, perm fs.FileMode) (disk.File, error) {
	if flag != 0 && m.on(name) {
		return nil, &fs.PathError{Op: "open", Path: name, Err: syscall.EROFS}
	}
	return m.FS.OpenFile(name, flag, perm)
}

// A disk that is mounted read-only is shown as that before anybody writes, is read,
// also by a start, and is written again when it can be.
func TestReadOnlyIsShown(t *testing.T) {
	fs := &mounted{FS: newDisk(t)}
	b := open(t, fs)
	fill(t, b, "ns", 0, 8)
	dir := asdDir(1)
	fs.readOnly.Store(&dir)
	for range 2 {
		b.ReopenDisks(ctx)
		d := diskStates(t, b, health.OK, health.ReadOnly, health.OK)[1]
		if !strings.Contains(d.Reason, "mounted read-only") {
			t.Error(d.Reason)
		}
		if s := status(t, b, health.Degraded, "disk 2 "); s.Missing != 0 || s.MayDie != 1 {
			t.Errorf("%d missing, %d may die", s.Missing, s.MayDie)
		}
	}
	fill(t, b, "ns", 8, 12)
	holds(t, b, "ns", 12)
	_ = b.Close() // it cannot write a checkpoint there
	b = open(t, fs)
	diskStates(t, b, health.OK, health.ReadOnly, health.OK)
	holds(t, b, "ns", 12)
	fs.readOnly.Store(nil)
	b.ReopenDisks(ctx)
	settled(t, b)
	holds(t, b, "ns", 12)
	must(t, b.Close())
}

// A file system that has failed and refuses writes need not be mounted read-only. A
// start finds it so, and reads what is on it.
func TestReadOnlyThatIsNotToldIsRead(t *testing.T) {
	fs := &mounted{FS: newDisk(t)}
	b := open(t, fs)
	fill(t, b, "ns", 0, 8)
	must(t, b.Close())
	dir := asdDir(1)
	fs.silent.Store(true)
	fs.readOnly.Store(&dir)
	b = open(t, fs)
	diskStates(t, b, health.OK, health.ReadOnly, health.OK)
	if s := status(t, b, health.Degraded, "disk 2 "); s.Missing != 0 || s.MayDie != 1 {
		t.Errorf("%d missing, %d may die", s.Missing, s.MayDie)
	}
	holds(t, b, "ns", 8)
	fs.readOnly.Store(nil)
	b.ReopenDisks(ctx)
	settled(t, b)
	must(t, b.Close())
}

// A disk that does not say how full it is fails; one that is drained is no reason to
// worry; one that was given up is shown until it is forgotten.
func TestOtherDiskStates(t *testing.T) {
	mem := newDisk(t)
	fs := faultdisk.New(mem)
	b := open(t, fs)
	defer func() { must(t, b.Close()) }()
	fill(t, b, "ns", 0, 8)
	fs.Inject(faultdisk.Rule{Ops: faultdisk.Statfs, Path: asdDir(0), Err: syscall.EIO})
	diskStates(t, b, health.Failing, health.OK, health.OK)
	status(t, b, health.Degraded, "disk 1 ", "is failing")
	fs.Clear()
	diskStates(t, b, health.OK)

	must(t, b.RemoveOSD(ctx, 3))
	diskStates(t, b, health.OK, health.OK, health.Draining)
	status(t, b, health.OK)

	number, err := b.AddOSD(ctx, "")
	must(t, err)
	settled(t, b)
	if list := diskStates(t, b, health.OK, health.OK, health.OK); len(list) != 3 || list[2].Number != number {
		t.Errorf("%+v", list)
	}
	b.fleet.Disk(1).Detach(errors.New("it was taken"))
	if _, err := b.ReplaceOSD(ctx, 1, "/elsewhere"); err != nil {
		t.Fatal(err)
	}
	diskStates(t, b, health.Lost)
	status(t, b, health.Degraded, "disk 1 ", "is lost")
	settled(t, b)
	holds(t, b, "ns", 8)
}

// A disk that is taken away from under an open ASD, or has another one in its place,
// is missing at the next look, whether anybody writes or not.
func TestTakenIsShown(t *testing.T) {
	for _, other := range []bool{false, true} {
		mem := newDisk(t)
		b := open(t, mem)
		fill(t, b, "ns", 0, 8)
		take(t, mem, 1)
		if other {
			must(t, mem.MkdirAll(asdDir(1), 0o700))
			copied(t, mem, asdDir(2)+"/identity", asdDir(1)+"/identity")
		}
		b.ReopenDisks(ctx)
		diskStates(t, b, health.OK, health.Missing, health.OK)
		status(t, b, health.Degraded, "disk 2 ")
		holds(t, b, "ns", 8)
		must(t, mem.RemoveAll(asdDir(1)))
		back(t, mem, 1)
		b.ReopenDisks(ctx)
		settled(t, b)
		must(t, b.Close())
	}
}

// A disk whose files are gone from it is damaged, and what was in them is made again.
func TestDamageIsShown(t *testing.T) {
	mem := newDisk(t)
	b := open(t, mem)
	fill(t, b, "ns", 0, 16)
	must(t, b.Close())
	must(t, mem.Remove(asdDir(1)+"/0000000000000001.seg"))
	b = open(t, mem)
	d := diskStates(t, b, health.OK, health.Damaged, health.OK)[1]
	status(t, b, health.Degraded, "disk 2 ", "is damaged")
	if d.Fragments == 0 || d.known.Absent < 2*d.Fragments { // each had its record beside it
		t.Errorf("%d fragments and records are absent, it had %d fragments", d.known.Absent, d.Fragments)
	}
	w := b.Maintenance()
	must(t, errors.Join(w.FindAbsent(ctx), w.Repair(ctx)))
	settled(t, b)
	diskStates(t, b, health.OK, health.OK, health.OK)
	holds(t, b, "ns", 16)
	must(t, b.Close())
}

// A group that has failed is said, with whatever else is known.
func TestGroupFails(t *testing.T) {
	fs := faultdisk.New(newDisk(t))
	b := open(t, fs)
	fill(t, b, "ns", 0, 4)
	s := status(t, b, health.OK)
	if len(s.Groups) != len(Specs()) {
		t.Errorf("%+v", s.Groups)
	}
	fs.Inject(faultdisk.Rule{Ops: faultdisk.Write | faultdisk.Datasync | faultdisk.Sync, Path: "/data/arakoon/" + hostName + "/...", Err: syscall.EIO})
	if err := b.Namespace("ns").Put(ctx, name(5), data(5)); err == nil {
		t.Fatal("put without a log")
	}
	<-b.groups.Node(hostName).Failed()
	s = status(t, b, health.Unreadable, "group "+hostName+": the member here has failed")
	if s.Disks != 3 || s.Capacity == 0 || s.Groups[1].State != health.Failed {
		t.Errorf("%+v", s)
	}
	fs.Clear()
	_ = b.Close()
}

// Disks on one file system have what is left of it together.
func TestSharedRoomCountsOnce(t *testing.T) {
	const gib = uint64(1) << 30
	fs := &volumes{FS: newDisk(t)}
	fs.set(3*gib, 3*gib, 3*gib)
	b := open(t, fs)
	defer func() { must(t, b.Close()) }()
	about := func(what string, systems int, want uint64) {
		t.Helper()
		s := status(t, b, health.OK)
		if s.FileSystems != systems || s.Capacity > want || s.Capacity < want/100*95 || s.Used > s.Capacity {
			t.Errorf("%s: %d file systems, %d of %d MiB, want %d", what, s.FileSystems, s.Used>>20, s.Capacity>>20, want>>20)
		}
	}
	about("three file systems", 3, 9*gib)
	fs.set()
	u, err := fs.Statfs("/data")
	must(t, err)
	about("one", 1, u.Total)
	list := diskStates(t, b, health.OK, health.OK, health.OK)
	if list[0].FileSystem == "" || list[0].FileSystem != list[2].FileSystem {
		t.Errorf("%+v", list)
	}
}

// A read that somebody gave up is no failed read.
func TestCancelledReadIsNone(t *testing.T) {
	b := open(t, newDisk(t))
	defer func() { must(t, b.Close()) }()
	fill(t, b, "ns", 0, 4)
	b.work.Unread(client.Unread{Namespace: 99, Name: "none", Err: fmt.Errorf("of a namespace that is gone")})
	must(t, b.work.Repair(ctx))
	status(t, b, health.OK)
}
