package asd

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"sync"
	"time"

	"openvstorage/internal/disk"
	"openvstorage/internal/format"
	"openvstorage/internal/generation"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"
)

// Nobody should find out by a write, or at the next start, that a disk is not as it
// should be. So whoever asks how full an ASD is has it look, without changing anything,
// whether its directory still leads to the disk that was opened, whether the file system
// takes writes, and whether the files that an open needs say what they should. What is
// wrong is told, and nothing is done about it (P8).

// inspectEvery is how long an identity file that has not changed is believed.
const inspectEvery = 5 * time.Second

// inspection is what is known of an ASD's place.
type inspection struct {
	mu      sync.Mutex
	lock    fs.FileInfo // of the lock file, which nobody replaces; nil: not known
	seen    fs.FileInfo // of the identity when it was read last; nil: never
	at      time.Time   // when that was
	on      disk.Usage  // what the file system said last while the directory led there
	trouble error       // what the next open would meet; nil: nothing
}

// look takes what the file system says to which the directory leads now, and returns what
// that of the ASD says: if it is another one, what it said last. The ASD takes no more
// writes then, nor if its file system takes none. trouble is what the next open would
// meet.
//
// Where every call takes long, whoever asks how full the disk is waits for each: of an
// identity file that has not changed nothing more is asked for a while.
func (a *ASD) look(on disk.Usage) (_ disk.Usage, trouble error) {
	i := &a.inspection
	i.mu.Lock()
	defer i.mu.Unlock()
	is, statErr := a.opt.FS.Stat(path.Join(a.opt.Dir, identityName))
	same := statErr == nil && i.seen != nil && disk.SameFile(i.seen, is) && on.ID == i.on.ID
	var refused error
	if !same || time.Since(i.at) >= a.opt.inspect {
		var elsewhere error
		if elsewhere, refused = a.inspect(); elsewhere != nil {
			_ = a.fail(elsewhere)
			return i.on, i.trouble
		}
		if i.at = time.Now(); statErr == nil {
			i.seen = is
		}
		if on.ID != i.on.ID && i.on.Total > 0 {
			// It led elsewhere for a moment, or the file system calls itself otherwise.
			again, err := a.opt.FS.Statfs(a.opt.Dir)
			if err != nil {
				return i.on, i.trouble
			}
			on = again
		}
	}
	i.on = on
	switch {
	case a.writable() != nil:
	case on.ReadOnly:
		_ = a.fail(fmt.Errorf("its file system is mounted read-only: %w", unix.EROFS))
	case refused != nil:
		_ = a.fail(fmt.Errorf("its file system takes no writes: %w", refused))
	}
	return on, i.trouble
}

// inspect looks at the place of the ASD, and at the files that an open needs. elsewhere
// is not nil if the directory holds another ASD now, or none; refused if the file system
// does not let a file be opened to be written: one that has failed may say so in no other
// way. inspection.mu is held.
func (a *ASD) inspect() (elsewhere, refused error) {
	i := &a.inspection
	flag := disk.Flag(0)
	if a.writable() == nil {
		flag = disk.Write
	}
	name := path.Join(a.opt.Dir, identityName)
	owner, claimed, settled := a.remembered() // before it is opened: it may be replaced meanwhile
	f, err := a.opt.FS.OpenFile(name, flag, 0)
	if flag != 0 && err != nil && !errors.Is(err, fs.ErrNotExist) {
		if disk.CauseOf(err) == disk.BadDisk {
			refused = err
		}
		f, err = a.opt.FS.OpenFile(name, 0, 0)
	}
	id, _, err := readOpened(f, name, err)
	switch {
	case errors.Is(err, ErrNoASD):
		return fmt.Errorf("the ASD's files are gone: %w", err), nil
	case err == nil && id.ID != a.identity.ID:
		return fmt.Errorf("another ASD, %s, is in its place", id.ID), nil
	case errors.Is(err, format.ErrNewer):
		return err, nil
	case a.isCopied():
		return errors.New("a copy of it is in its place, or its lock was replaced"), nil
	}
	if err == nil && settled && id.Owner != owner {
		err = fmt.Errorf("%s: it says that the ASD belongs to %v, and it belongs to %v; restore the file", name, id.Owner, owner)
	}
	if err == nil && settled {
		err = a.checkClaim(claimed)
	}
	if now, told, still := a.remembered(); err != nil && (Passes(err) || !settled || !still || now != owner || told != claimed) {
		return nil, refused // nothing is known
	}
	if (err == nil) != (i.trouble == nil) {
		a.tellTrouble(err)
	}
	i.trouble = err
	return nil, refused
}

func (a *ASD) tellTrouble(err error) {
	if err == nil {
		a.opt.Logger.Info("asd: its files are as they should be again", "asd", a.identity.ID, "dir", a.opt.Dir)
		return
	}
	a.opt.Logger.Error("asd: it is read and written, and the next start would not open it", "asd", a.identity.ID, "dir", a.opt.Dir, "err", err)
}

// remembered is what identity and claim should say, if neither is being written now.
func (a *ASD) remembered() (owner uuid.UUID, claimed generation.Mark, ok bool) {
	select {
	case a.claiming <- struct{}{}:
		defer func() { <-a.claiming }()
		return a.identity.Owner, a.Claimed(), true
	default:
		return owner, claimed, false
	}
}

// checkClaim reads the claim. One block of it may be bad: the other one says it all.
func (a *ASD) checkClaim(want generation.Mark) error {
	m, _, _, err := readClaim(a.opt.FS, a.opt.Dir)
	if err == nil && m != want {
		return fmt.Errorf("%s: it says %v, and was told %v; restore the file", path.Join(a.opt.Dir, claimName), m, want)
	}
	return err
}

// isCopied reports whether the directory leads to another lock file than the one that is
// held: to a copy of the disk, which is mounted over it.
func (a *ASD) isCopied() bool {
	was := a.inspection.lock
	if was == nil {
		return false
	}
	is, err := a.opt.FS.Stat(path.Join(a.opt.Dir, LockName))
	return err == nil && !disk.SameInode(was, is)
}
