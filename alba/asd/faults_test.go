package asd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"openvstorage/alba/osd"
	"openvstorage/internal/disk"
	"openvstorage/internal/disk/crashdisk"
	"openvstorage/internal/disk/faultdisk"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"
)

// faulty is a disk that breaks over one that can be cut.
type faulty struct {
	*faultdisk.FS
	mem *crashdisk.FS
}

func openFaulty(t *testing.T) (*ASD, faulty, Options) {
	mem := crashdisk.New()
	fsys := faulty{faultdisk.New(mem), mem}
	opt := small(fsys)
	return openNew(t, opt), fsys, opt
}

func TestFailedSync(t *testing.T) {
	a, fsys, opt := openFaulty(t)
	data := random(rand.New(rand.NewPCG(1, 1)), 9000)
	apply(t, a, put("before", data, 1))
	fsys.Inject(faultdisk.Rule{Ops: faultdisk.Datasync, Path: newName, Times: 1, Err: unix.EIO})
	for _, key := range []string{"lost", "refused"} {
		if err := a.Apply(ctx, nil, []osd.Update{put(key, data, 1)}); !errors.Is(err, osd.ErrReadOnly) {
			t.Fatal(err)
		}
	}
	if err := a.Apply(ctx, nil, []osd.Update{del("before")}); !errors.Is(err, osd.ErrReadOnly) || !errors.Is(err, unix.EIO) {
		t.Fatal(err)
	}
	mustGet(t, a, "before", data)
	if u, err := a.Usage(ctx); err != nil || !errors.Is(u.ReadOnly, osd.ErrReadOnly) || !u.Full {
		t.Fatal(u, err)
	}
	// What the next life finds it writes again before it believes it.
	a.Close()
	b := reopen(t, opt)
	_, err := get(b, "lost")
	kept := err == nil
	b.Close()
	opt.FS = fsys.mem.Crash(rand.New(rand.NewPCG(1, 1)), crashdisk.LoseAll)
	c := reopen(t, opt)
	mustGet(t, c, "before", data)
	if _, err := get(c, "lost"); kept != (err == nil) || len(c.Damage()) > 0 {
		t.Fatal(kept, err, c.Damage())
	}
}

func TestFailedWrite(t *testing.T) {
	for _, times := range []int{1, 2} {
		a, fsys, opt := openFaulty(t)
		quiet(a)
		data := random(rand.New(rand.NewPCG(1, 1)), 300_000)
		apply(t, a, put("before", data, 1))
		fsys.Inject(faultdisk.Rule{Ops: faultdisk.Write, Skip: 1, Times: 1, Err: unix.EIO, Short: 5000})
		if times == 2 {
			fsys.Inject(faultdisk.Rule{Ops: faultdisk.Write, Path: newName, Times: 1, Err: unix.EIO})
		}
		err := a.Apply(ctx, nil, []osd.Update{put("k", data, 2)})
		if (err == nil) != (times == 1) || times == 2 && !errors.Is(err, unix.EIO) {
			t.Fatal(times, err)
		}
		apply(t, a, put("after", data, 3))
		for range 2 {
			mustGet(t, a, "before", data)
			mustGet(t, a, "after", data)
			if times == 1 {
				mustGet(t, a, "k", data)
			}
			// Without a checkpoint, as after a crash.
			image := fsys.mem.Kill()
			image.Remove("disk/" + indexName)
			opt.FS = image
			a.Close()
			a = reopen(t, opt)
			if d := a.Damage(); len(d) > 0 {
				t.Fatal(d)
			}
		}
	}
}

func TestDirectoryVanishes(t *testing.T) {
	a, fsys, opt := openFaulty(t)
	data := make([]byte, 5000)
	apply(t, a, put("k", data, 1))
	if err := fsys.Rename("disk", "elsewhere"); err != nil {
		t.Fatal(err)
	}
	if err := a.Apply(ctx, nil, []osd.Update{put("lost", data, 1)}); !errors.Is(err, osd.ErrReadOnly) {
		t.Fatal(err)
	}
	mustGet(t, a, "k", data)
	if _, err := a.Usage(ctx); err == nil {
		t.Fatal("Usage of nothing")
	}
	if err := a.Claim(ctx, testID.ID); err == nil {
		t.Fatal("claimed nothing")
	}
	a.Close()
	if _, err := Open(opt); !errors.Is(err, ErrNoASD) {
		t.Fatal(err)
	}
	if names, _ := fsys.ReadDir("/"); len(names) != 1 {
		t.Fatal(names)
	}
	opt.Dir = "elsewhere"
	mustGet(t, reopen(t, opt), "k", data)
}

func TestUnreadableValue(t *testing.T) {
	a, fsys, _ := openFaulty(t)
	apply(t, a, put("k", make([]byte, 5000), 1))
	rule := fsys.Inject(faultdisk.Rule{Ops: faultdisk.Read, Err: unix.EIO})
	if _, err := get(a, "k"); !errors.Is(err, unix.EIO) || errors.Is(err, osd.ErrCorrupt) {
		t.Fatal(err)
	}
	bad, next, err := a.Verify(ctx, nil, 10)
	if err != nil || next != nil || len(bad) != 1 || !errors.Is(bad[0].Err, unix.EIO) {
		t.Fatal(bad, next, err)
	}
	rule.Remove()
	mustGet(t, a, "k", make([]byte, 5000))
}

// fill puts values of 20000 bytes until there are n segments, and returns the
// keys.
func fill(t *testing.T, a *ASD, n int) (keys []string, data []byte) {
	data = random(rand.New(rand.NewPCG(5, 5)), 20000)
	for a.Stats().Segments < n {
		key := fmt.Sprintf("k%04d", len(keys))
		apply(t, a, put(key, data, 9))
		keys = append(keys, key)
	}
	return keys, data
}

func corrupt(t *testing.T, fsys disk.FS, name string, at int64) {
	t.Helper()
	f, err := fsys.OpenFile(name, disk.Write, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	f.ReadAt(b[:], at)
	b[0] ^= 1
	f.WriteAt(b[:], at)
}

// waitFor makes the ASD's maintenance run until it has nothing to do.
func waitFor(t *testing.T, a *ASD, done func(Stats) bool) {
	t.Helper()
	for range 100 {
		if done(a.Stats()) {
			return
		}
		if err := a.upkeep.pass(ctx); err != nil {
			t.Fatal(err)
		}
	}
	t.Fatalf("%+v", a.Stats())
}

// quiet stops an ASD's own maintenance, so that a test can call pass.
func quiet(a *ASD) {
	a.cancel()
	a.tasks.Wait()
	a.dir.ctx, a.cancel = context.WithCancel(ctx)
}

func TestCompaction(t *testing.T) {
	fsys := crashdisk.New()
	opt := small(fsys)
	a := openNew(t, opt)
	quiet(a)
	keys, data := fill(t, a, 12)
	var left []string
	for i, key := range keys {
		if i%4 == 0 {
			left = append(left, key)
		} else {
			apply(t, a, del(key))
		}
	}
	before, _ := a.Usage(ctx)
	waitFor(t, a, func(s Stats) bool { return s.Segments <= 6 })
	after, _ := a.Usage(ctx)
	if after.Used > before.Used/2 || a.Stats().Spares == 0 || a.Stats().CompactBytes == 0 {
		t.Fatalf("%+v, %+v, %+v", before, after, a.Stats())
	}
	check := func() {
		t.Helper()
		list, err := a.Range(ctx, nil, nil, osd.RangeMax)
		if err != nil || len(list) != len(left) {
			t.Fatal(len(list), len(left), err)
		}
		for _, key := range left {
			mustGet(t, a, key, data)
		}
	}
	check()
	more, _ := fill(t, a, 9) // over the spares
	for _, key := range more {
		apply(t, a, del(key))
	}
	for _, key := range left {
		apply(t, a, put(key, data, 9))
	}
	check()
	waitFor(t, a, func(s Stats) bool { return s.Segments <= 5 })
	for _, name := range []string{indexName, ""} {
		a.Close()
		fsys.Remove("disk/" + name)
		a = reopen(t, opt)
		check()
		if d := a.Damage(); len(d) > 0 {
			t.Fatal(d)
		}
	}
}

// An empty value takes no room, so that two puts of a key in one batch lie at
// the same offset. Compaction moves the later one.
func TestCompactionOfEmptyValues(t *testing.T) {
	a := openNew(t, small(crashdisk.New()))
	quiet(a)
	var list []*request
	for seed := range uint64(3) {
		r := &request{updates: []osd.Update{put("empty", nil, seed)}, done: make(chan error, 1)}
		if _, err := r.check(); err != nil {
			t.Fatal(err)
		}
		list = append(list, r)
	}
	a.writer.commit(list)
	p, _ := a.contents.place([]byte("empty"))
	a.writer.commit([]*request{{roll: true, done: make(chan error, 1)}})
	if err := a.compactor.compact(ctx, a.contents.segments[p.segment], true); err != nil {
		t.Fatal(err)
	}
	q, ok := a.contents.place([]byte("empty"))
	if !ok || q.segment == p.segment || q.epoch != p.epoch {
		t.Fatalf("%+v became %+v", p, q)
	}
}

// A corrupt value is not copied; its segment stays for it, and all else goes on.
func TestCompactionMeetsCorruption(t *testing.T) {
	fsys := crashdisk.New()
	opt := small(fsys)
	var reported [][]byte
	opt.OnCorrupt = func(key []byte, err error) { reported = append(reported, key) }
	a := openNew(t, opt)
	quiet(a)
	keys, data := fill(t, a, 3)
	p, _ := a.contents.place([]byte(keys[0]))
	corrupt(t, fsys, "disk/"+segmentName(p.segment), int64(p.data)+5000)
	for _, key := range keys[2:] {
		apply(t, a, del(key))
	}
	if err := a.upkeep.pass(ctx); err != nil {
		t.Fatal(err)
	}
	mustGet(t, a, keys[1], data)
	if q, _ := a.contents.place([]byte(keys[1])); q.segment == p.segment {
		t.Fatal("not moved")
	}
	_, err := get(a, keys[0])
	var c *CorruptError
	if !errors.As(err, &c) || string(c.Key) != keys[0] || !strings.HasSuffix(c.File, segmentName(p.segment)) || c.Offset != int64(p.data)+4096 {
		t.Fatal(err)
	}
	if len(reported) != 2 || string(reported[0]) != keys[0] {
		t.Fatal(reported)
	}
	if bad, _, _ := a.Verify(ctx, nil, 10); len(bad) != 1 || string(bad[0].Key) != keys[0] {
		t.Fatal(bad)
	}
	apply(t, a, put(keys[0], data, 9))
	waitFor(t, a, func(s Stats) bool { return a.contents.segment(p.segment) == nil })
	mustGet(t, a, keys[0], data)
}

// A segment that is gone or has no header costs its values and says so.
func TestMissingSegment(t *testing.T) {
	fsys := crashdisk.New()
	opt := small(fsys)
	a := openNew(t, opt)
	quiet(a)
	keys, data := fill(t, a, 4)
	p, _ := a.contents.place([]byte(keys[0]))
	a.Close()
	for what, hit := range map[string]func(disk.FS){
		"missing":   func(d disk.FS) { d.Remove("disk/" + segmentName(p.segment)) },
		"no header": func(d disk.FS) { corrupt(t, d, "disk/"+segmentName(p.segment), 20); d.Remove("disk/" + indexName) },
		"header":    func(d disk.FS) { corrupt(t, d, "disk/"+segmentName(p.segment), 20) },
	} {
		image := fsys.Kill()
		hit(image)
		opt.FS = image
		b := reopen(t, opt)
		if len(b.Damage()) == 0 {
			t.Fatal(what, "is not reported")
		}
		_, err := get(b, keys[0])
		switch what {
		case "missing":
			var crcs [1]uint32
			read := b.Read(context.Background(), []byte(keys[0]), 0, make([]byte, min(len(data), 4096)), crcs[:])
			if !errors.Is(err, osd.ErrNotFound) || !errors.Is(read, osd.ErrCorrupt) {
				t.Fatal(what, err, read)
			}
			u, err := b.Usage(context.Background())
			if err != nil || u.Absent == 0 || u.Absent > u.Keys {
				t.Fatalf("%s: %+v, %v", what, u, err)
			}
			if err := b.Apply(context.Background(), nil, []osd.Update{{Key: []byte(keys[0]), Delete: true}}); err != nil {
				t.Fatal(err)
			}
			if after, err := b.Usage(context.Background()); err != nil || after.Absent != u.Absent-1 {
				t.Fatalf("%s: %+v, %v", what, after, err)
			}
		case "no header":
			if !errors.Is(err, osd.ErrNotFound) {
				t.Fatal(what, err)
			}
		default:
			if err != nil {
				t.Fatal(what, err)
			}
		}
		mustGet(t, b, keys[len(keys)-1], data)
		apply(t, b, put("more", data, 1))
		mustGet(t, b, "more", data)
	}
}

// A bad head in the middle costs what is in it, and what is behind it lives.
func TestDamagedHead(t *testing.T) {
	fsys := crashdisk.New()
	opt := small(fsys)
	a := openNew(t, opt)
	data := random(rand.New(rand.NewPCG(1, 1)), 6000)
	for i := range 5 {
		apply(t, a, put(fmt.Sprint(i), data, 1))
	}
	p, _ := a.contents.place([]byte("2"))
	image := fsys.Kill()
	corrupt(t, image, "disk/"+segmentName(p.segment), int64(p.data)-blockSize+20)
	opt.FS = image
	b := reopen(t, opt)
	for i := range 5 {
		got, err := get(b, fmt.Sprint(i))
		if i == 2 && !errors.Is(err, osd.ErrNotFound) || i != 2 && (err != nil || !bytes.Equal(got, data)) {
			t.Fatal(i, err)
		}
	}
	if d := b.Damage(); len(d) != 1 || d[0].Offset != int64(p.data)-blockSize {
		t.Fatal(d)
	}
}

func TestScanSegment(t *testing.T) {
	fsys := crashdisk.New()
	a := openNew(t, small(fsys))
	data := random(rand.New(rand.NewPCG(1, 1)), 6000)
	apply(t, a, put("a", data, 1), put("b", data[:100], 2))
	apply(t, a, del("a"))
	p, _ := a.contents.place([]byte("b"))
	var batches, marks, entries int
	h, err := ScanSegment(fsys, "disk/"+segmentName(p.segment), func(r *Record) error {
		if r.Mark {
			marks++
		} else {
			batches++
		}
		for i := range r.Entries {
			entries++
			if err := r.Check(i); err != nil {
				t.Error(err)
			}
		}
		return r.Err
	})
	if err != nil || h.Number != uint64(p.segment) || h.ASD != testID.ID || batches != 2 || marks != 1 || entries != 3 {
		t.Fatal(h, err, batches, marks, entries)
	}
}

// killed opens what a kill leaves of an ASD, with its newest checkpoint or
// without.
func killed(t *testing.T, fsys *crashdisk.FS, checkpoint bool) *ASD {
	t.Helper()
	image := fsys.Kill()
	if !checkpoint {
		image.Remove("disk/" + indexName)
	}
	return reopen(t, small(image))
}

// A delete lives as long as a segment may hold what it deleted.
func TestDeletesOutliveCompaction(t *testing.T) {
	fsys := crashdisk.New()
	a := openNew(t, small(fsys))
	quiet(a)
	old, data := fill(t, a, 3)
	first, _ := a.contents.place([]byte(old[0]))
	var also []string
	for n := a.Stats().Segments; a.Stats().Segments < n+3; {
		key := fmt.Sprintf("later%04d", len(also))
		apply(t, a, put(key, data, 1))
		also = append(also, key)
		if len(also) == 20 {
			apply(t, a, del(old[0])) // in the middle of a segment in which all else dies
		}
	}
	for _, key := range also {
		apply(t, a, del(key))
	}
	if err := a.checkpoints.write(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, a, func(s Stats) bool { return s.Segments <= 4 })
	if _, ok := a.contents.segments[first.segment]; !ok {
		t.Fatal("the segment that holds the value is gone; the test shows nothing")
	}
	for _, checkpoint := range []bool{true, false} {
		b := killed(t, fsys, checkpoint)
		if _, err := get(b, old[0]); !errors.Is(err, osd.ErrNotFound) {
			t.Fatal(checkpoint, err)
		}
		mustGet(t, b, old[1], data)
	}
}

// A delete lives as long as the newest checkpoint has what it deleted.
func TestDeletesOutliveTheCheckpoint(t *testing.T) {
	fsys := crashdisk.New()
	a := openNew(t, small(fsys))
	quiet(a)
	keys, _ := fill(t, a, 3)
	if err := a.checkpoints.write(); err != nil {
		t.Fatal(err)
	}
	for _, key := range keys {
		apply(t, a, del(key))
	}
	// Others, until the segment with the deletes is closed, and dead.
	for n := a.appender.lastNumber; a.appender.lastNumber < n+2; {
		apply(t, a, put("other", make([]byte, 20000), 1))
	}
	for range 10 {
		s, hurry, err := a.compactor.victim()
		if err != nil {
			t.Fatal(err)
		}
		if s == nil {
			break
		}
		if err := a.compactor.compact(ctx, s, hurry); err != nil {
			t.Fatal(err)
		}
	}
	want, _ := a.Range(ctx, nil, nil, osd.RangeMax)
	b := killed(t, fsys, true)
	got, _ := b.Range(ctx, nil, nil, osd.RangeMax)
	if len(got) != len(want) || len(b.Damage()) > 0 {
		t.Fatal(len(got), len(want), b.Damage())
	}
}

// An ASD that nobody writes to gives back what it keeps to be fast, and has
// all that was not deleted, after a restart too.
func TestRest(t *testing.T) {
	fsys := crashdisk.New()
	opt := small(fsys)
	a := openNew(t, opt)
	quiet(a)
	keys, data := fill(t, a, 12)
	for _, key := range keys[1:] {
		apply(t, a, del(key))
	}
	for range 3 { // the last segment, then those that it kept from going
		if err := a.upkeep.rest(ctx); err != nil {
			t.Fatal(err)
		}
	}
	u, err := a.Usage(ctx)
	if s := a.Stats(); err != nil || s.Spares != 0 || u.Used > uint64(2*opt.SegmentBytes) {
		t.Errorf("%+v, %+v, %v", u, s, err)
	}
	mustGet(t, a, keys[0], data)
	apply(t, a, put("after", data, 5))
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	a = reopen(t, opt)
	mustGet(t, a, keys[0], data)
	mustGet(t, a, "after", data)
	if list, err := a.Range(ctx, nil, nil, 100); err != nil || len(list) != 2 {
		t.Errorf("%d keys, %v", len(list), err)
	}
}

// A sync of what compaction had moved failed, and what was moved cannot be
// written again by the next life, as the disk fails writes: another sync of the
// same file, which succeeds, says nothing. What was moved stays where it was.
func TestFailedSyncIsNotAskedAgain(t *testing.T) {
	a, fsys, opt := openFaulty(t)
	quiet(a)
	keys, data := fill(t, a, 3)
	p, _ := a.contents.place([]byte(keys[0]))
	for _, key := range keys[1:] {
		if q, _ := a.contents.place([]byte(key)); q.segment == p.segment {
			apply(t, a, del(key))
		}
	}
	fsys.Inject(faultdisk.Rule{Ops: faultdisk.Datasync, Times: 1, Err: unix.EIO})
	if err := a.compactor.compact(ctx, a.contents.segments[p.segment], true); !errors.Is(err, osd.ErrReadOnly) {
		t.Fatal(err)
	}
	a.Close()
	fsys.Inject(faultdisk.Rule{Ops: faultdisk.Write, Path: newName, Err: unix.EIO})
	b := reopen(t, opt)
	quiet(b)
	fsys.Clear()
	mustGet(t, b, keys[0], data)
	if b.health.writable() == nil {
		apply(t, b, put("more", data, 1))
	} else if err := b.Apply(ctx, nil, []osd.Update{put("more", data, 1)}); !errors.Is(err, unix.EIO) {
		t.Fatal(err)
	}
	if err := b.upkeep.pass(ctx); err != nil {
		t.Fatal(err)
	}
	opt.FS = fsys.mem.Crash(rand.New(rand.NewPCG(1, 1)), crashdisk.LoseAll)
	c := reopen(t, opt)
	mustGet(t, c, keys[0], data)
	b.Close()
	// Where it can be written again all goes on.
	opt.FS = fsys
	d := reopen(t, opt)
	mustGet(t, d, keys[0], data)
	apply(t, d, put("more", data, 1))
}

// A disk without room writes the last batches to the reserve.
func TestTailOnFullDisk(t *testing.T) {
	a, fsys, opt := openFaulty(t)
	quiet(a)
	data := random(rand.New(rand.NewPCG(1, 1)), 5000)
	apply(t, a, put("before", data, 1))
	fsys.Inject(faultdisk.Rule{Ops: faultdisk.Write, Skip: 1, Times: 1, Err: unix.EIO}) // the mark
	apply(t, a, put("last", data, 1))
	killed := faultdisk.New(fsys.mem.Kill())
	killed.Limit("disk", 0)
	opt.FS = killed
	b := reopen(t, opt)
	quiet(b)
	mustGet(t, b, "last", data)
	if err := b.health.writable(); err != nil {
		t.Fatal(err)
	}
	apply(t, b, del("before"))
}

// To be asked how full it is costs an ASD two calls on its file system, each of which
// may take long; and that its directory leads elsewhere, or to nothing, is seen all the
// same.
func TestUsageMakesFewCalls(t *testing.T) {
	elsewhere := map[string]func(disk.FS) error{
		"another in its place": func(fs disk.FS) error {
			return errors.Join(fs.Rename("disk", "away"), Create(fs, "disk", Identity{ID: uuid.New()}))
		},
		"another over it": func(fs disk.FS) error { return writeIdentity(fs, "disk", Identity{ID: uuid.New()}) },
		"gone":            func(fs disk.FS) error { return fs.Rename("disk", "away") },
		"emptied":         func(fs disk.FS) error { return fs.Remove("disk/" + identityName) },
	}
	for what, happen := range elsewhere {
		fs := faultdisk.New(crashdisk.New())
		opt := small(fs)
		opt.inspect = time.Hour
		a := openNew(t, opt)
		apply(t, a, put("k", []byte("v"), 1))
		usage := func() osd.Usage {
			t.Helper()
			u, err := a.Usage(ctx)
			if err != nil {
				t.Fatal(err)
			}
			return u
		}
		usage()
		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		must(a.Claim(ctx, uuid.New())) // the file is another one from now on
		if u := usage(); u.ReadOnly != nil {
			t.Fatal(u.ReadOnly)
		}
		quiet(a) // the next file for records was being made, with calls of its own
		before := fs.Count(faultdisk.Any, "")
		if u := usage(); u.ReadOnly != nil {
			t.Fatal(u.ReadOnly)
		}
		if n := fs.Count(faultdisk.Any, "") - before; n > 2 {
			t.Errorf("%d calls", n)
		}
		must(happen(fs))
		if what == "gone" {
			must(fs.MkdirAll("disk", 0o700)) // the mount point below
		}
		if u := usage(); u.ReadOnly == nil || !u.Full {
			t.Errorf("%s: it takes writes: %+v", what, u)
		}
		if err := a.Apply(ctx, nil, []osd.Update{put("l", []byte("w"), 1)}); !errors.Is(err, osd.ErrReadOnly) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// What an ASD is to leave to others on its file system is no room for puts, and it says
// so; deletes are served, and when others need less it takes puts again.
func TestLeavesRoomToOthers(t *testing.T) {
	const room, leave = 24 << 20, 16 << 20
	fs := faultdisk.New(crashdisk.New())
	opt := small(fs)
	var others atomic.Uint64
	others.Store(leave)
	opt.Leave = others.Load
	a := openNew(t, opt)
	quota := fs.Limit("disk", room).Disk(32 << 20)
	usage := func() osd.Usage {
		t.Helper()
		u, err := a.Usage(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	if u := usage(); u.Room > room-leave || u.Room < (room-leave)/2 || u.Capacity > u.Used+room-leave {
		t.Errorf("empty: %+v", u)
	}
	data, n := make([]byte, 64<<10), 0
	fill := func() {
		t.Helper()
		for ; ; n++ {
			err := a.Apply(ctx, nil, []osd.Update{put(fmt.Sprint("k", n), data, 1)})
			if errors.Is(err, osd.ErrFull) {
				return
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	fill()
	if left := quota.Left(); left < leave || n == 0 {
		t.Errorf("after %d puts %d bytes are left to others, not %d", n, left, leave)
	}
	if u := usage(); u.Room >= 1<<20 || u.ReadOnly != nil {
		t.Errorf("full: %+v", u)
	}
	apply(t, a, del("k0"))
	if _, err := get(a, "k0"); !errors.Is(err, osd.ErrNotFound) {
		t.Errorf("deleted: %v", err)
	}
	others.Store(0)
	before := n
	if u := usage(); u.Full || u.Room < 8<<20 {
		t.Errorf("others need nothing: %+v", u)
	}
	fill()
	if n < before+32 {
		t.Errorf("others need nothing, and only %d puts more were taken", n-before)
	}
	mustGet(t, a, "k1", data)
	others.Store(1 << 62) // more than there is
	if u := usage(); !u.Full || u.Room != 0 {
		t.Errorf("others need all: %+v", u)
	}
}
