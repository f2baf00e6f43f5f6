package groups

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"openvstorage/arakoon"
	"openvstorage/internal/disk/crashdisk"
	"openvstorage/internal/disk/faultdisk"

	"golang.org/x/sys/unix"
)

// put writes a value for as long as a second, and reports whether it was answered.
func put(u *User, value string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	_, err := u.Do(ctx, new(arakoon.Sequence).Set([]byte("k"), []byte(value)))
	return err
}

// awaitPut writes a value again and again until that is answered.
func awaitPut(t *testing.T, s *start, u *User, value string) {
	t.Helper()
	var err error
	for range 200 {
		if err = put(u, value); err == nil {
			return
		}
		time.Sleep(time.Second)
	}
	f, n := s.Fate("a")
	t.Fatalf("it does not take writes again: %v; it has failed %d times: %v", err, n, f)
}

// A member whose disk fails in any operation, for a while, goes on by itself when the disk is
// well: its users have what was answered, and so does whoever opens it after a power cut.
func TestFailedMemberIsOpenedAnew(t *testing.T) {
	const log, state, marks, all = "/data/arakoon/a/log/...", "/data/arakoon/a/state/...", "/data/arakoon/a.marks*", "/data/arakoon/a/..."
	const sync, grow = faultdisk.Datasync | faultdisk.Sync, faultdisk.Prewrite | faultdisk.Allocate
	failed := uint64(0)
	for _, c := range []struct {
		place string
		op    faultdisk.Op
		errno unix.Errno
	}{
		{log, faultdisk.Write, unix.EIO}, {log, sync, unix.EIO}, {log, sync, unix.ENOSPC}, {log, grow, unix.EIO}, {log, faultdisk.Open, unix.EIO},
		{log, faultdisk.Rename, unix.EIO}, {log, faultdisk.SyncDir, unix.EIO}, {log, faultdisk.SyncDir, unix.ENOSPC}, {log, faultdisk.Remove, unix.EIO},
		{state, faultdisk.Write, unix.EIO}, {state, faultdisk.Write, unix.EDQUOT}, {state, sync, unix.EIO}, {state, sync, unix.ENOSPC}, {state, faultdisk.Open, unix.EIO},
		{state, faultdisk.Rename, unix.EIO}, {state, faultdisk.SyncDir, unix.EIO},
		{marks, faultdisk.Write, unix.EIO}, {marks, sync, unix.EIO}, {marks, sync, unix.ENOSPC}, {marks, faultdisk.Rename, unix.EIO},
		{all, faultdisk.Any &^ (faultdisk.Close | faultdisk.Read | faultdisk.Stat | faultdisk.Size | faultdisk.ReadDir), unix.EIO}, {all, faultdisk.Write | grow | faultdisk.Open, unix.ENOSPC}, {all, faultdisk.Open, unix.EMFILE},
	} {
		t.Run(fmt.Sprintf("%s, %v, %v", path.Base(path.Dir(c.place)), c.op, c.errno), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { failed += failAndGoOn(t, c.place, c.op, c.errno) })
		})
	}
	if failed == 0 {
		t.Error("no member has failed: nothing was tested")
	}
}

// failAndGoOn returns how often the member has failed.
func failAndGoOn(t *testing.T, pattern string, op faultdisk.Op, errno error) uint64 {
	mem := crashdisk.New()
	faulty := faultdisk.New(mem)
	s := mustOpen(t, faulty)
	u := s.User("a")
	big := bytes.Repeat([]byte("x"), 1<<20)
	fill := func(v string) { _ = put(u, v+string(big)) }
	must(t, put(u, "000"))
	last, n := "000", 0
	next := func() string { n++; return fmt.Sprintf("%03d", n) }
	rule := faulty.Inject(faultdisk.Rule{Ops: op, Path: pattern, Err: errno})
	rounds := 5
	if strings.Contains(pattern, "state") {
		rounds = 10
	}
	for range rounds { // segments of the log, and of the state, come and go
		v := next()
		fill(next())
		if put(u, v) == nil {
			last = v
		}
		beat, cancel := context.WithTimeout(ctx, time.Second)
		_, _, _ = s.Beat(beat)
		cancel()
	}
	time.Sleep(3 * time.Second)
	rule.Remove()
	v := next()
	awaitPut(t, s, u, v)
	last = v
	if got, err := u.Get(ctx, arakoon.Consistent, []byte("k")); err != nil || string(got) != last {
		t.Fatalf("it holds %.10q, and %q was written: %v", got, last, err)
	}
	if f, _ := s.Fate("a"); f.Failed != nil {
		t.Errorf("it takes writes, and is said to have failed: %v", f)
	}
	_, failures := s.Fate("a")
	image := mem.Crash(rand.New(rand.NewPCG(1, 1)), crashdisk.LoseAll)
	must(t, s.Close())
	again := mustOpen(t, image)
	if got := again.value(t, "a"); got != last {
		t.Errorf("after a power cut it holds %.10q, and %q was answered", got, last)
	}
	must(t, again.Close())
	return failures
}

// While a member is closed and its disk is broken, its users are told so, and after a while at
// once; other groups go on, and a stop ends.
func TestMemberStaysFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		faulty := faultdisk.New(crashdisk.New())
		s := mustOpen(t, faulty)
		u := s.User("a")
		must(t, put(u, "1"))
		faulty.Inject(faultdisk.Rule{Ops: faultdisk.Any &^ faultdisk.Close, Path: "/data/arakoon/a/...", Err: unix.EIO})
		if err := put(u, "2"); !errors.Is(err, arakoon.ErrUnknownOutcome) {
			t.Fatalf("a write on a broken disk: %v", err)
		}
		time.Sleep(10 * time.Minute)
		began := time.Now()
		if err := put(u, "3"); !errors.Is(err, arakoon.ErrFailed) || errors.Is(err, arakoon.ErrUnknownOutcome) {
			t.Errorf("a write that was not done: %v", err)
		}
		if took := time.Since(began); took > 0 {
			t.Errorf("it waited for %v, although the member has failed long ago", took)
		}
		f, n := s.Fate("a")
		if n != 1 || !errors.Is(f.Failed, unix.EIO) || !errors.Is(f.Again, unix.EIO) || f.Final || !strings.Contains(f.String(), "opened anew at") {
			t.Errorf("failed %d times: %v", n, f)
		}
		if left := time.Until(f.Next); left <= 0 || left > againMost {
			t.Errorf("the next try comes in %v", left)
		}
		must(t, put(s.User("b"), "1"))
		if err := s.Close(); !errors.Is(err, arakoon.ErrFailed) {
			t.Errorf("the stop does not say that a member had failed: %v", err)
		}
	})
}

// A member whose files were taken away while it had failed is refused by name, and made by
// nobody; put back, it is opened.
func TestFilesOfFailedMemberAreGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := crashdisk.New()
		faulty := faultdisk.New(mem)
		s := mustOpen(t, faulty)
		u := s.User("a")
		must(t, put(u, "1"))
		rule := faulty.Inject(faultdisk.Rule{Ops: faultdisk.Any &^ faultdisk.Close, Path: "/data/arakoon/a/...", Err: unix.EIO})
		_ = put(u, "2")
		time.Sleep(time.Second)
		kept := mem.Kill()
		must(t, mem.RemoveAll("/data/arakoon/a"))
		rule.Remove()
		time.Sleep(10 * time.Minute)
		f, _ := s.Fate("a")
		if !errors.Is(f.Again, ErrMissing) {
			t.Errorf("files are gone: %v", f)
		}
		if _, err := mem.Stat("/data/arakoon/a/log"); err == nil {
			t.Error("something was made in their place")
		}
		must(t, mem.RemoveAll("/data/arakoon/a"))
		copyTree(t, kept, "/data/arakoon/a", mem)
		awaitPut(t, s, u, "3")
		must(t, s.Close())
	})
}

// An older copy of a group of one, put in the place of its files while it had failed, is
// refused, and opened by nobody.
func TestOlderCopyOfFailedMember(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := crashdisk.New()
		s := mustOpen(t, mem)
		must(t, s.Close())
		older := mem.Kill()
		faulty := faultdisk.New(mem)
		s = mustOpen(t, faulty)
		u := s.User("a")
		must(t, put(u, "1"))
		rule := faulty.Inject(faultdisk.Rule{Ops: faultdisk.Any &^ faultdisk.Close, Path: "/data/arakoon/a/...", Err: unix.EIO})
		_ = put(u, "2")
		time.Sleep(time.Second)
		for _, name := range []string{"/data/arakoon/a", "/data/arakoon/a.marks"} {
			must(t, mem.RemoveAll(name))
			copyTree(t, older, name, mem)
		}
		rule.Remove()
		time.Sleep(10 * time.Minute)
		f, _ := s.Fate("a")
		if !f.Final || !errors.Is(f.Again, ErrOlder) || !strings.Contains(f.String(), "not opened anew") {
			t.Errorf("an older copy: %v", f)
		}
		if err := put(u, "3"); err == nil {
			t.Error("it takes writes")
		}
		if err := s.Close(); err == nil {
			t.Error("the stop says nothing of it")
		}
	})
}

// A member that joined is opened anew with its links: others hear nothing of it meanwhile. A
// Drop of one that has failed deletes it.
func TestJoinedMemberFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		faulty := faultdisk.New(crashdisk.New())
		s, err := openJoined(faulty)
		must(t, err)
		var calls []string
		spec := guest
		spec.Link.Attach = func(n *arakoon.Node) {
			if n.Err() != nil {
				t.Error("a member that has failed is attached")
			}
			calls = append(calls, "attach")
		}
		spec.Link.Detach = func() { calls = append(calls, "detach") }
		must(t, s.Make(ctx, spec))
		files := path.Join(dir, "arakoon", guest.dirName())
		rule := faulty.Inject(faultdisk.Rule{Ops: faultdisk.Datasync, Path: files + "/...", Err: unix.EIO})
		_ = put(s.User("g"), "1")
		synctest.Wait()
		rule.Remove()
		awaitPut(t, s, s.User("g"), "2")
		if got := strings.Join(calls, " "); got != "attach detach attach" {
			t.Errorf("links: %s", got)
		}
		faulty.Inject(faultdisk.Rule{Ops: faultdisk.Datasync, Path: files + "/...", Err: unix.EIO})
		_ = put(s.User("g"), "3")
		time.Sleep(time.Minute)
		if !s.Holds("g", 7) {
			t.Error("a member that has failed is not here any more")
		}
		must(t, s.Make(ctx, spec)) // it is here, and is not made anew
		must(t, s.Drop("g", 7))
		if s.Holds("g", 7) || s.Made("g", 7) {
			t.Error("it was dropped, and is here")
		}
		must(t, s.Close())
	})
}
