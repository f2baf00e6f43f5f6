package asd

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"openvstorage/alba/osd"
	"openvstorage/internal/disk"
	"openvstorage/internal/disk/crashdisk"
	"openvstorage/internal/disk/osdisk"

	"golang.org/x/sys/unix"
)

// sectors is a disk that does not give some blocks of some files.
type sectors struct {
	disk.FS
	mu  sync.Mutex
	bad map[string]map[int64]bool // by base name and block
}

func newSectors(under disk.FS) *sectors {
	return &sectors{FS: under, bad: map[string]map[int64]bool{}}
}

func (d *sectors) spoil(name string, blocks ...int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.bad[name] == nil {
		d.bad[name] = map[int64]bool{}
	}
	for _, b := range blocks {
		d.bad[name][b] = true
	}
}

// heal has the disk give all again.
func (d *sectors) heal() {
	d.mu.Lock()
	defer d.mu.Unlock()
	clear(d.bad)
}

func (d *sectors) OpenFile(name string, flag disk.Flag, perm fs.FileMode) (disk.File, error) {
	f, err := d.FS.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return &sectorFile{f, d, path.Base(name)}, nil
}

type sectorFile struct {
	disk.File
	d    *sectors
	base string
}

func (f *sectorFile) ReadAt(p []byte, off int64) (int, error) {
	f.d.mu.Lock()
	bad := f.d.bad[f.base]
	for b := off / blockSize; len(bad) > 0 && b*blockSize < off+int64(len(p)); b++ {
		if bad[b] {
			f.d.mu.Unlock()
			return 0, &fs.PathError{Op: "read", Path: f.Name(), Err: unix.EIO}
		}
	}
	f.d.mu.Unlock()
	return f.File.ReadAt(p, off)
}

// Any one block that cannot be read costs what lies in it, and nothing for good:
// the ASD opens, serves what it can, and says of all else that it cannot be read.
// When the block is well again everything is there, with all that was written
// meanwhile.
func TestBadSector(t *testing.T) {
	for _, checkpoint := range []bool{true, false} {
		mem, have := used(t, checkpoint)
		names, err := mem.ReadDir("disk")
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			info, err := mem.Stat("disk/" + name)
			if err != nil {
				t.Fatal(err)
			}
			if name == identityName || name == reserveName {
				continue
			}
			for block := range (info.Size() + blockSize - 1) / blockSize {
				if testing.Short() && block > 2 && block%5 != 0 {
					continue
				}
				badSector(t, mem, have, name, block)
			}
		}
	}
}

func badSector(t *testing.T, mem *crashdisk.FS, have outcomes, name string, block int64) {
	t.Helper()
	what := fmt.Sprintf("block %d of %s", block, name)
	image := mem.Kill()
	fsys := newSectors(image)
	fsys.spoil(name, block)
	a, err := Open(errnoOptions(fsys))
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	quiet(a)
	lost := 0
	for key := range have {
		got, err := get(a, key)
		if errors.Is(err, osd.ErrNotFound) {
			err = a.Read(ctx, []byte(key), 0, nil, nil)
		}
		switch {
		case errors.Is(err, osd.ErrUnreadable):
			lost++
		case have.differsIn(key, got, err) && a.contents.unread == nil:
			t.Fatalf("%s: %s: %d bytes, %v", what, key, len(got), err)
		}
	}
	if readable := a.contents.unread == nil; readable != (a.health.writable() == nil) || lost > 3 && readable {
		t.Fatalf("%s: %v, %d lost", what, a.health.writable(), lost)
	}
	after := maps.Clone(have)
	for i := range 12 {
		key := fmt.Sprintf("key-%02d", i)
		u := put(key, make([]byte, 3000*i), 77)
		if i%3 == 0 {
			u = del(key)
		}
		err := a.Apply(ctx, nil, []osd.Update{u})
		if a.contents.unread != nil && (!errors.Is(err, osd.ErrReadOnly) || !errors.Is(err, osd.ErrUnreadable) || !errors.Is(err, unix.EIO) || !strings.Contains(err.Error(), name)) {
			t.Fatalf("%s: %v", what, err)
		}
		after.applied(u, err)
	}
	for range 3 {
		if err := a.upkeep.pass(ctx); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	killed := image.Kill()
	a.Close()
	fsys.heal()
	intact(t, what, killed, after)
	intact(t, what+", closed", image, after)
}

// differsIn reports whether a key may not hold what was read.
func (o outcomes) differsIn(key string, got []byte, err error) bool {
	return !slices.ContainsFunc(o[key], func(u *osd.Update) bool {
		if u == nil {
			return errors.Is(err, osd.ErrNotFound)
		}
		return err == nil && string(got) == string(u.Value.Data)
	})
}

// The head of the last batch cannot be read for good. Somebody says that it is
// given up: it costs that batch, seqs are not used again, and what was said does
// not count for the next sector.
func TestAcceptUnreadable(t *testing.T) {
	mem := crashdisk.New()
	a := openNew(t, errnoOptions(mem))
	quiet(a)
	data := random(rand.New(rand.NewPCG(1, 1)), 5000)
	apply(t, a, put("much", make([]byte, 50000), 1)) // so that the segment stays
	for _, key := range []string{"a", "b", "c"} {
		apply(t, a, put(key, data, 1))
	}
	p, _ := a.contents.place([]byte("c"))
	q, _ := a.contents.place([]byte("a"))
	image := mem.Kill()
	name := segmentName(p.segment)
	fsys := newSectors(image)
	// Both the head and the mark behind the batch, which would tell of it.
	fsys.spoil(name, int64(p.data)/blockSize-1, int64(p.data)/blockSize+2)

	b := reopen(t, errnoOptions(fsys))
	if err := b.Apply(ctx, nil, []osd.Update{put("d", data, 1)}); !errors.Is(err, osd.ErrUnreadable) || !strings.Contains(err.Error(), acceptName) {
		t.Fatal(err)
	}
	b.Close()
	write(t, fsys, path.Join("disk", acceptName), nil)
	c := reopen(t, errnoOptions(fsys))
	mustGet(t, c, "b", data)
	if err := c.Read(ctx, []byte("c"), 0, nil, nil); !errors.Is(err, osd.ErrNotFound) || len(c.Damage()) == 0 {
		t.Fatal(err, c.Damage())
	}
	apply(t, c, put("d", data, 1))
	if _, err := fsys.Stat(path.Join("disk", acceptName)); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal("what was said once counts for ever:", err)
	}
	if mine, was := c.contents.newest(), a.contents.newest(); mine <= was {
		t.Fatalf("seq %d was given out again, up to %d were", mine, was)
	}
	// Cut off, and with the sector well again, and all read anew.
	cut := image.Crash(rand.New(rand.NewPCG(1, 1)), crashdisk.LoseAll)
	cutOff := newSectors(cut)
	maps.Copy(cutOff.bad, fsys.bad)
	d := reopen(t, errnoOptions(cutOff))
	mustGet(t, d, "d", data)
	mustGet(t, d, "b", data)
	apply(t, d, put("e", data, 1))
	d.Close()
	if err := cut.Remove("disk/" + indexName); err != nil {
		t.Fatal(err)
	}
	e := reopen(t, errnoOptions(cut))
	for _, key := range []string{"a", "b", "d", "e"} {
		mustGet(t, e, key, data)
	}
	// What was given up may be back.
	if got, err := get(e, "c"); !errors.Is(err, osd.ErrNotFound) && string(got) != string(data) {
		t.Fatal(err)
	}
	e.Close()
	// Another sector is another question.
	cutOff.heal()
	cutOff.spoil(segmentName(q.segment), int64(q.data)/blockSize-1)
	if err := cut.Remove("disk/" + indexName); err != nil {
		t.Fatal(err)
	}
	f := reopen(t, errnoOptions(cutOff))
	if f.health.writable() == nil {
		t.Fatal("it takes writes, and has not read all")
	}
}

// What was said counts for nothing where all can be read.
func TestAcceptedInVain(t *testing.T) {
	mem, have := used(t, true)
	write(t, mem, path.Join("disk", acceptName), nil)
	a := reopen(t, errnoOptions(mem))
	if why := have.differs(a, false); why != "" {
		t.Fatal(why)
	}
	if _, err := mem.Stat(path.Join("disk", acceptName)); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
}

// A disk that gives next to nothing is refused, soon, and loses nothing by it.
func TestDyingDisk(t *testing.T) {
	mem, have := used(t, false)
	fsys := newSectors(mem)
	names, _ := mem.ReadDir("disk")
	for _, name := range names {
		for block := range int64(100) {
			if name != identityName {
				fsys.spoil(name, 1+block)
			}
		}
	}
	_, err := Open(errnoOptions(fsys))
	if !errors.Is(err, errDying) || !errors.Is(err, unix.EIO) || !strings.Contains(err.Error(), suffix) || Passes(err) {
		t.Fatal(err)
	}
	intact(t, "dying", mem, have)
}

// Compaction meets blocks that it cannot read: a value, and a head with a delete
// in it. Both keep their segment, and nothing that was deleted comes back.
func TestCompactionMeetsBadSectors(t *testing.T) {
	mem := crashdisk.New()
	fsys := newSectors(mem)
	a := openNew(t, errnoOptions(fsys))
	quiet(a)
	old, data := fill(t, a, 3)
	first, _ := a.contents.place([]byte(old[0]))
	// A segment with one delete of a value in the first, and all else dies.
	a.writer.commit([]*request{{roll: true, done: make(chan error, 1)}})
	apply(t, a, put("x", data, 1))
	at := a.appender.current.end
	apply(t, a, del(old[0]))
	s := a.appender.current
	apply(t, a, del("x"))
	a.writer.commit([]*request{{roll: true, done: make(chan error, 1)}})
	apply(t, a, put("y", data, 1))
	fsys.spoil(segmentName(s.number), at/blockSize)
	if err := a.compactor.compact(ctx, s, true); err != nil {
		t.Fatal(err)
	}
	if a.contents.segments[s.number] == nil {
		t.Fatal("the segment is retired with a delete that could not be read")
	}
	// A value in the first segment.
	p, _ := a.contents.place([]byte(old[1]))
	if p.segment != first.segment {
		t.Fatal("the test shows nothing")
	}
	fsys.spoil(segmentName(p.segment), int64(p.data)/blockSize+1)
	if err := a.compactor.compact(ctx, a.contents.segments[p.segment], true); err != nil {
		t.Fatal(err)
	}
	if _, err := get(a, old[1]); !errors.Is(err, osd.ErrUnreadable) || !errors.Is(err, unix.EIO) || a.contents.segments[p.segment] == nil {
		t.Fatal(err)
	}
	fsys.heal()
	mustGet(t, a, old[1], data)
	b := killed(t, mem, false)
	mustGet(t, b, old[1], data)
	if _, err := get(b, old[0]); !errors.Is(err, osd.ErrNotFound) {
		t.Fatal("what was deleted is back:", err)
	}
}

// A file that has grown to gigabytes of nothing is read in pieces, or refused by
// name, and never into memory.
func TestGrownFiles(t *testing.T) {
	const grown = 6 << 30
	for _, c := range []struct {
		grow  string // "": the newest segment
		index bool
	}{{"", true}, {"", false}, {indexName, true}, {identityName, true}, {reserveName, true}} {
		fsys := osdisk.New()
		opt := small(fsys)
		opt.Dir = path.Join(t.TempDir(), "disk")
		a := openNew(t, opt)
		keys, data := fill(t, a, 2)
		p, _ := a.contents.place([]byte(keys[len(keys)-1]))
		a.Close()
		name := path.Join(opt.Dir, c.grow)
		if c.grow == "" {
			name = path.Join(opt.Dir, segmentName(p.segment))
		}
		if !c.index {
			if err := fsys.Remove(path.Join(opt.Dir, indexName)); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Truncate(name, grown); err != nil {
			t.Skip(err)
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		a, err := Open(opt)
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; n > 64<<20 {
			t.Errorf("%s: %d bytes of memory", name, n)
		}
		if c.grow == identityName {
			if err == nil || !strings.Contains(err.Error(), name) {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for _, key := range keys {
			mustGet(t, a, key, data)
		}
		apply(t, a, put("more", data, 1))
		a.Close()
	}
}
