package asd

import (
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"openvstorage/alba/osd"
	"openvstorage/internal/disk"
	"openvstorage/internal/disk/crashdisk"
	"openvstorage/internal/disk/faultdisk"
	"openvstorage/internal/disk/osdisk"

	"golang.org/x/sys/unix"
)

// counted is a disk that counts the segments that are open for reading.
type counted struct {
	disk.FS
	open, most atomic.Int64
}

func (d *counted) OpenFile(name string, flag disk.Flag, perm fs.FileMode) (disk.File, error) {
	f, err := d.FS.OpenFile(name, flag, perm)
	if err != nil || flag&disk.Write != 0 || !strings.HasSuffix(name, suffix) {
		return f, err
	}
	n := d.open.Add(1)
	for most := d.most.Load(); n > most && !d.most.CompareAndSwap(most, n); most = d.most.Load() {
	}
	return &countedFile{f, d}, nil
}

type countedFile struct {
	disk.File
	d *counted
}

func (f *countedFile) Close() error {
	f.d.open.Add(-1)
	return f.File.Close()
}

// Two ASDs of many segments share a few descriptors: all is read, by many at
// once, while segments come and go, and no more are open than that, and one for
// each read under way.
func TestDescriptorsAreBounded(t *testing.T) {
	const most, readers = 3, 4
	fsys := &counted{FS: crashdisk.New()}
	files := NewDescriptors(most)
	var asds []*ASD
	var keys []string
	var data []byte
	for _, dir := range []string{"one", "two"} {
		opt := small(fsys)
		opt.Dir, opt.Descriptors = dir, files
		a := openNew(t, opt)
		keys, data = fill(t, a, 12)
		asds = append(asds, a)
	}
	fsys.most.Store(fsys.open.Load())
	var wg sync.WaitGroup
	for g := range readers {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(g), 9))
			for i := range 300 {
				a, key := asds[rng.IntN(2)], keys[rng.IntN(len(keys)/2)]
				if got, err := get(a, key); err != nil || string(got) != string(data) {
					t.Error(key, err)
				}
				if g == 0 && i < len(keys)/2 {
					apply(t, a, del(keys[len(keys)/2+i]))
				}
			}
		})
	}
	wg.Wait()
	// Each ASD compacts beside the readers.
	if n := fsys.most.Load(); n > most+readers+2 {
		t.Errorf("%d segments were open at once", n)
	}
	for _, a := range asds {
		quiet(a)
		if err := a.upkeep.pass(ctx); err != nil {
			t.Fatal(err)
		}
		if bad, next, err := a.Verify(ctx, nil, 1000); len(bad) > 0 || next != nil || err != nil {
			t.Fatal(bad, next, err)
		}
	}
	s := files.Stats()
	if fsys.open.Load() > most || s.Open != int(fsys.open.Load()) || s.Max != most || s.Closed == 0 {
		t.Errorf("%d segments are open, %+v", fsys.open.Load(), s)
	}
	for _, a := range asds {
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if n, s := fsys.open.Load(), files.Stats(); n != 0 || s.Open != 0 {
		t.Errorf("%d segments are open when all is closed, %+v", n, s)
	}
}

// The same, told by the kernel, and by opening an ASD that has many segments.
func TestDescriptorsOfTheProcess(t *testing.T) {
	const most = 4
	opt := small(osdisk.New())
	opt.Dir, opt.Descriptors = path.Join(t.TempDir(), "disk"), NewDescriptors(most)
	a := openNew(t, opt)
	fill(t, a, 12)
	for range 2 {
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
		if n := openBelow(t, opt.Dir); n != 0 {
			t.Fatalf("%d files are open of a closed ASD", n)
		}
		a = reopen(t, opt)
		if n := openBelow(t, opt.Dir); n > most+1 { // and the lock
			t.Fatalf("%d files are open", n)
		}
	}
}

func openBelow(t *testing.T, dir string) (n int) {
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip(err)
	}
	for _, e := range list {
		if name, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && strings.HasPrefix(name, dir+"/") {
			n++
		}
	}
	return n
}

// With no descriptor left for a while nothing fails; with none for longer, the
// call does, with the error that says so, and nothing is broken.
func TestNoDescriptorLeft(t *testing.T) {
	fsys := faultdisk.New(crashdisk.New())
	opt := errnoOptions(fsys)
	opt.Descriptors = NewDescriptors(1)
	a := openNew(t, opt)
	quiet(a)
	keys, data := fill(t, a, 4)
	last := keys[len(keys)/2]
	read := func() error {
		get(a, last) // so that the first segment is not the one that is open
		_, err := get(a, keys[0])
		return err
	}
	if err := read(); err != nil {
		t.Fatal(err)
	}
	for _, errno := range []unix.Errno{unix.EMFILE, unix.ENFILE} {
		rule := fsys.Inject(faultdisk.Rule{Ops: faultdisk.Open, Times: 1, Err: errno})
		mustGet(t, a, last, data)
		mustGet(t, a, keys[0], data)
		a.appender.seal()
		if rule.Fired() == 0 {
			t.Fatal("the test shows nothing")
		}
		rule.Remove()
		rule = fsys.Inject(faultdisk.Rule{Ops: faultdisk.Open, Err: errno})
		if err := errors.Join(read(), read()); !errors.Is(err, errno) || errors.Is(err, osd.ErrCorrupt) || errors.Is(err, osd.ErrUnreadable) {
			t.Fatal(err)
		}
		if bad, _, err := a.Verify(ctx, nil, 1000); !errors.Is(err, errno) || len(bad) > 0 {
			t.Fatal(bad, err)
		}
		if err := a.Apply(ctx, nil, []osd.Update{put("more", data, 1)}); !errors.Is(err, errno) || errors.Is(err, osd.ErrReadOnly) {
			t.Fatal(err)
		}
		rule.Remove()
		apply(t, a, put("more", data, 1))
		mustGet(t, a, keys[0], data)
	}
}

// A read that is under way keeps its file, though its segment is retired and the
// file is one too many.
func TestReadKeepsItsFile(t *testing.T) {
	fsys := faultdisk.New(crashdisk.New())
	opt := errnoOptions(fsys)
	opt.Descriptors = NewDescriptors(1)
	a := openNew(t, opt)
	quiet(a)
	keys, data := fill(t, a, 4)
	for _, op := range []faultdisk.Op{faultdisk.Read, faultdisk.Open} {
		p, _ := a.contents.place([]byte(keys[0]))
		s := a.contents.segments[p.segment]
		a.dir.giveUp(s) // so that it is opened
		s.gone.Store(false)
		gate := faultdisk.NewGate()
		rule := fsys.Inject(faultdisk.Rule{Ops: op, Path: segmentName(p.segment), Times: 1, Before: gate.Wait})
		read := make(chan error)
		go func() {
			got, err := get(a, keys[0])
			if err == nil && string(got) != string(data) {
				err = errors.New("other bytes")
			}
			read <- err
		}()
		<-gate.Arrived()
		// Everything in the segment moves, and it goes.
		for _, key := range keys {
			if q, _ := a.contents.place([]byte(key)); q.segment == p.segment {
				apply(t, a, put(key, data, 9))
			}
		}
		if err := a.compactor.retire(s); err != nil {
			t.Fatal(err)
		}
		if a.Stats().Spares > 0 {
			t.Fatal("a file that is read became a spare")
		}
		mustGet(t, a, keys[len(keys)-1], data)
		gate.Open()
		if err := <-read; err != nil {
			t.Fatal(op, err)
		}
		rule.Remove()
		a.writer.commit([]*request{{roll: true, done: make(chan error, 1)}})
		if s := a.dir.files.Stats(); s.Open > s.Max {
			t.Fatalf("%v: %+v", op, s)
		}
	}
}

// The bound is a part of what the process may have open.
func TestDescriptorsDefault(t *testing.T) {
	if d := NewDescriptors(0); d.max != OpenFilesMax()/2 || d.max < DescriptorsMin {
		t.Errorf("%d of %d", d.max, OpenFilesMax())
	}
}

// A segment that somebody removes while its file is closed is missing: what was
// in it is reported. If the directory is gone nothing is known.
func TestSegmentRemovedWhileClosed(t *testing.T) {
	fsys := crashdisk.New()
	opt := small(fsys)
	opt.Descriptors = NewDescriptors(1)
	a := openNew(t, opt)
	quiet(a)
	keys, data := fill(t, a, 4)
	p, _ := a.contents.place([]byte(keys[0]))
	mustGet(t, a, keys[len(keys)/2], data)
	if err := fsys.Rename("disk", "elsewhere"); err != nil {
		t.Fatal(err)
	}
	if _, err := get(a, keys[0]); !errors.Is(err, fs.ErrNotExist) || errors.Is(err, osd.ErrCorrupt) {
		t.Error(err)
	}
	if err := fsys.Rename("elsewhere", "disk"); err != nil {
		t.Fatal(err)
	}
	mustGet(t, a, keys[0], data)
	mustGet(t, a, keys[len(keys)/2], data)
	if err := fsys.Remove("disk/" + segmentName(p.segment)); err != nil {
		t.Fatal(err)
	}
	if _, err := get(a, keys[0]); !errors.Is(err, osd.ErrCorrupt) {
		t.Error(err)
	}
	if bad, _, err := a.Verify(ctx, nil, 1000); err != nil || len(bad) == 0 {
		t.Error(len(bad), err)
	}
}
