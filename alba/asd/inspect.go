package asd

import (
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"openvstorage/internal/disk"
	"openvstorage/internal/format"
	"openvstorage/internal/generation"

	"golang.org/x/sys/unix"
)

// A disk that is not as it should be must be noticed before a write or the next start
// meets it. So each call of Usage checks three things, without changing anything: whether
// the directory still leads to the disk that was opened, whether the file system takes
// writes, and whether the files that an Open needs say what they should. What is wrong is
// reported, and nothing is deleted or made anew (rule P8).

// inspectEvery is how long an identity file that has not changed is believed.
const inspectEvery = 5 * time.Second

// inspection checks the disk of an open ASD, and knows what it found last.
type inspection struct {
	dir       *directory
	health    *health
	ownership *ownership
	every     time.Duration // how long a file that has not changed is believed

	mu      sync.Mutex
	lock    fs.FileInfo // of the lock file, which nobody replaces; nil: not known
	seen    fs.FileInfo // of the identity when it was read last; nil: never
	at      time.Time   // when that was
	on      disk.Usage  // what the file system said last while the directory led there
	trouble error       // what the next open would meet; nil: nothing
}

// hold notes which lock file the ASD holds. It is called before anybody else inspects.
func (i *inspection) hold(lock fs.FileInfo) { i.lock = lock }

// check inspects the disk. on is the usage of the file system that the directory leads to
// now. If that is another disk than the one that was opened, the ASD becomes read-only, and
// check returns the usage from before. The ASD also becomes read-only if its file system
// takes no writes. trouble is what the next Open would meet.
//
// On a slow disk each call takes long, and whoever asks for the usage waits for all of
// them. So an identity file that has not changed is believed for a while.
func (i *inspection) check(on disk.Usage) (_ disk.Usage, trouble error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	is, statErr := i.dir.fs.Stat(i.dir.join(identityName))
	same := statErr == nil && i.seen != nil && disk.SameFile(i.seen, is) && on.ID == i.on.ID
	var refused error
	if !same || time.Since(i.at) >= i.every {
		var elsewhere error
		if elsewhere, refused = i.inspect(); elsewhere != nil {
			_ = i.health.fail(elsewhere)
			return i.on, i.trouble
		}
		if i.at = time.Now(); statErr == nil {
			i.seen = is
		}
		if on.ID != i.on.ID && i.on.Total > 0 {
			// It led elsewhere for a moment, or the file system calls itself otherwise.
			again, err := i.dir.fs.Statfs(i.dir.path)
			if err != nil {
				return i.on, i.trouble
			}
			on = again
		}
	}
	i.on = on
	switch {
	case i.health.writable() != nil:
	case on.ReadOnly:
		_ = i.health.fail(fmt.Errorf("its file system is mounted read-only: %w", unix.EROFS))
	case refused != nil:
		_ = i.health.fail(fmt.Errorf("its file system takes no writes: %w", refused))
	}
	return on, i.trouble
}

// inspect reads the files that an Open needs, and sets trouble. elsewhere is not nil if
// the directory holds another ASD now, or none. refused is not nil if the file system does
// not let a file be opened for writing: a file system that has failed may not show it in
// any other way. mu is held.
func (i *inspection) inspect() (elsewhere, refused error) {
	flag := disk.Flag(0)
	if i.health.writable() == nil {
		flag = disk.Write
	}
	name := i.dir.join(identityName)
	owner, claimed, settled := i.ownership.tryCurrent() // before it is opened: it may be replaced meanwhile
	f, err := i.dir.fs.OpenFile(name, flag, 0)
	if flag != 0 && err != nil && !errors.Is(err, fs.ErrNotExist) {
		if disk.CauseOf(err) == disk.BadDisk {
			refused = err
		}
		f, err = i.dir.fs.OpenFile(name, 0, 0)
	}
	id, _, err := readOpened(f, name, err)
	switch {
	case errors.Is(err, ErrNoASD):
		return fmt.Errorf("the ASD's files are gone: %w", err), nil
	case err == nil && id.ID != i.dir.id:
		return fmt.Errorf("another ASD, %s, is in its place", id.ID), nil
	case errors.Is(err, format.ErrNewer):
		return err, nil
	case i.isCopied():
		return errors.New("a copy of it is in its place, or its lock was replaced"), nil
	}
	if err == nil && settled && id.Owner != owner {
		err = fmt.Errorf("%s: it says that the ASD belongs to %v, and it belongs to %v; restore the file", name, id.Owner, owner)
	}
	if err == nil && settled {
		err = i.checkClaim(claimed)
	}
	// What was read while the files were being written, or after an error that passes,
	// tells nothing.
	if now, told, still := i.ownership.tryCurrent(); err != nil && (Passes(err) || !settled || !still || now != owner || told != claimed) {
		return nil, refused
	}
	if (err == nil) != (i.trouble == nil) {
		i.logTrouble(err)
	}
	i.trouble = err
	return nil, refused
}

func (i *inspection) logTrouble(err error) {
	if err == nil {
		i.dir.log.Info("asd: its files are as they should be again", "asd", i.dir.id, "dir", i.dir.path)
		return
	}
	i.dir.log.Error("asd: it is read and written, and the next start would not open it", "asd", i.dir.id, "dir", i.dir.path, "err", err)
}

// checkClaim compares the claim with what it should say. One good block is enough.
func (i *inspection) checkClaim(want generation.Mark) error {
	m, _, _, err := readClaim(i.dir.fs, i.dir.path)
	if err == nil && m != want {
		return fmt.Errorf("%s: it says %v, and was told %v; restore the file", i.dir.join(claimName), m, want)
	}
	return err
}

// isCopied reports whether the directory leads to another lock file than the one that
// this process holds. Then a copy of the disk is mounted over it.
func (i *inspection) isCopied() bool {
	if i.lock == nil {
		return false
	}
	is, err := i.dir.fs.Stat(i.dir.join(LockName))
	return err == nil && !disk.SameInode(i.lock, is)
}
