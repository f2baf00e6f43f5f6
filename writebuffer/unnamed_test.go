package writebuffer

import (
	"errors"
	"fmt"
	"path"
	"runtime"
	"strings"
	"sync"
	"testing"

	"openvstorage/internal/disk"
	"openvstorage/internal/disk/crashdisk"
	"openvstorage/internal/disk/faultdisk"

	"golang.org/x/sys/unix"
)

// forgetful is a disk on which a failed sync of a directory loses what it was to make
// durable: a name that was removed before it and is not made and removed again comes
// back with a power cut, whatever later syncs say.
type forgetful struct {
	disk.FS
	mu      sync.Mutex
	fails   int // syncs of directories that are still to fail, with ENOSPC
	pending map[string]bool
	lost    map[string]bool // the removal of these names
}

func newForgetful(under disk.FS) *forgetful {
	return &forgetful{FS: under, pending: map[string]bool{}, lost: map[string]bool{}}
}

func (d *forgetful) removed(name string, err error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err == nil {
		d.pending[name] = true
		delete(d.lost, name)
	}
	return err
}

func (d *forgetful) Remove(name string) error { return d.removed(name, d.FS.Remove(name)) }

func (d *forgetful) RemoveAll(name string) error {
	if _, err := d.FS.Stat(name); err != nil {
		return d.FS.RemoveAll(name)
	}
	return d.removed(name, d.FS.RemoveAll(name))
}

func (d *forgetful) SyncDir(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var of []string
	for p := range d.pending {
		if path.Dir(p) == name {
			of = append(of, p)
			delete(d.pending, p)
		}
	}
	if d.fails == 0 || len(of) == 0 {
		return d.FS.SyncDir(name)
	}
	d.fails--
	for _, p := range of {
		d.lost[p] = true
	}
	return fmt.Errorf("sync %s: %w", name, unix.ENOSPC)
}

// fail has the next n syncs of directories from which something was removed fail.
func (d *forgetful) fail(n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fails, d.pending = n, map[string]bool{}
}

// backAfterPowerCut lists the names with a suffix whose removal is not durable. left
// is how many syncs are still to fail.
func (d *forgetful) backAfterPowerCut(suffix string) (names []string, left int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for p := range d.lost {
		if strings.HasSuffix(p, suffix) {
			names = append(names, p)
		}
	}
	return names, d.fails
}

// The file with which a person accepts a loss is gone for good once a Resume has
// come to its end, however often the sync of its removal found no room.
func TestAcceptedLossGoesForGood(t *testing.T) {
	for _, fails := range []int{1, roomTries, roomTries + 1, 3 * roomTries} {
		first := newRig(t)
		first.write(0, 3, 1)
		first.commit()
		r := makeRig(t, first.under.Kill(), first.vol.copy())
		d := newForgetful(r.disk)
		r.openBuffer(bufferOptions(d))
		word := path.Join(r.buf.Dir(r.vol.id), AcceptLoss)
		f, err := r.under.OpenFile(word, disk.Write|disk.Create, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(f.Close(), r.under.SyncDir(path.Dir(word))); err != nil {
			t.Fatal(err)
		}
		found, err := r.buf.Recover(r.vol.recoverOptions())
		if err != nil || !found.Accepted {
			t.Fatal(found, err)
		}
		r.begin(found)
		d.fail(fails)
		err = r.log.Resume(found)
		for try := 0; err != nil; try++ {
			if !errors.Is(err, unix.ENOSPC) || r.log.Resuming() == nil || try > fails {
				t.Fatal(err)
			}
			err = r.log.GoOn(r.ctx)
		}
		if back, left := d.backAfterPowerCut(AcceptLoss); left > 0 || len(back) > 0 {
			t.Errorf("%d failed syncs: a power cut brings %v back", fails, back)
		}
		r.cut(crashdisk.LoseAll).check(0, 3, 1)
		if _, err := r.under.Stat(word); err == nil {
			t.Error("the word is still there")
		}
	}
}

// A vDisk whose files are discarded is discarded for good, also when the sync of that
// fails, and its files are counted once.
func TestDiscardGoesForGood(t *testing.T) {
	for _, fails := range []int{1, roomTries + 1} {
		r := makeRig(t, crashdisk.New(), newVolume(testVolume))
		d := newForgetful(r.disk)
		r.openBuffer(bufferOptions(d))
		r.openLog()
		r.write(0, 3, 1)
		r.commit()
		if err := r.log.Close(nil); err != nil {
			t.Fatal(err)
		}
		d.fail(fails)
		err := r.buf.Discard(r.vol.id)
		for try := 0; err != nil; try++ {
			if !errors.Is(err, unix.ENOSPC) || try > fails {
				t.Fatal(err)
			}
			err = r.buf.Discard(r.vol.id)
		}
		if back, left := d.backAfterPowerCut(r.vol.id.String()); left > 0 || len(back) > 0 {
			t.Errorf("%d failed syncs: a power cut brings %v back", fails, back)
		}
		if r.buf.Holds(r.vol.id) {
			t.Error("it holds files")
		}
		counted := func() int {
			r.buf.pool.mu.Lock()
			defer r.buf.pool.mu.Unlock()
			return r.buf.pool.files
		}
		for counted() != r.files() { // some may be under way
			if r.ctx.Err() != nil {
				t.Fatalf("%d files counted, %d there", counted(), r.files())
			}
			runtime.Gosched()
		}
		if err := r.buf.Discard(r.vol.id); err != nil {
			t.Error(err)
		}
	}
}

// A discard that fails half way counts what is gone, and only that.
func TestDiscardCountsWhatIsGone(t *testing.T) {
	r := newFastRig(t)
	r.write(0, 3, 1)
	r.commit()
	if err := r.log.Close(nil); err != nil {
		t.Fatal(err)
	}
	r.buf.pool.mu.Lock()
	before := r.buf.pool.files
	r.buf.pool.mu.Unlock()
	inject := r.disk.Inject(faultdisk.Rule{Ops: faultdisk.RemoveAll, Err: unix.EIO})
	for range 3 {
		if err := r.buf.Discard(r.vol.id); !errors.Is(err, unix.EIO) {
			t.Fatal(err)
		}
	}
	inject.Remove()
	r.buf.pool.mu.Lock()
	after := r.buf.pool.files
	r.buf.pool.mu.Unlock()
	if after < before {
		t.Errorf("%d files counted, then %d, and none is gone", before, after)
	}
}
