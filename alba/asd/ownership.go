package asd

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"

	"openvstorage/alba/osd"
	"openvstorage/internal/ctxlock"
	"openvstorage/internal/disk"
	"openvstorage/internal/generation"

	"github.com/google/uuid"
)

// ownership is whose the ASD is: its identity, and the newest generation of its backend
// that it has seen. Both are in files, and change there before they change here.
type ownership struct {
	dir    *directory
	health *health

	changing ctxlock.Lock                    // held while identity or claim is read or written
	identity Identity                        // Owner and Generation change, under changing
	claimed  atomic.Pointer[generation.Mark] // changes under changing
	turn     uint64                          // of the claim's newest block, 0: there is no claim yet; under changing
}

// load takes over the identity that was read, and reads the claim that goes with it.
func (o *ownership) load(id Identity) error {
	o.identity = id
	claimed, turn, _, err := readClaim(o.dir.fs, o.dir.path)
	if err != nil {
		return err
	}
	if turn == 0 && id.Generation > 0 {
		return fmt.Errorf("%s is missing, and by its identity the ASD has seen generation %d; restore the file, or replace the disk", o.dir.join(claimName), id.Generation)
	}
	o.turn = turn
	o.claimed.Store(&claimed)
	return nil
}

// take waits for the lock, and so for a disk that has a change under way.
func (o *ownership) take() { _ = o.changing.Take(context.Background()) } // which has no end

// settle waits for a change that is under way.
func (o *ownership) settle() {
	o.take()
	o.changing.Give()
}

// current returns the identity.
func (o *ownership) current() Identity {
	o.take()
	defer o.changing.Give()
	return o.identity
}

// tryCurrent returns what the files should say; not ok: they are being written.
func (o *ownership) tryCurrent() (owner uuid.UUID, claimed generation.Mark, ok bool) {
	if !o.changing.Try() {
		return owner, claimed, false
	}
	defer o.changing.Give()
	return o.identity.Owner, o.newest(), true
}

// newest returns the newest generation that the ASD has seen.
func (o *ownership) newest() generation.Mark { return *o.claimed.Load() }

// claim gives the ASD its owner, durably. It refuses another one than it has, and any once
// the ASD is closed: its directory may be another process's then.
func (o *ownership) claim(owner uuid.UUID) error {
	o.take()
	defer o.changing.Give()
	if err := o.health.writable(); err != nil {
		return err
	}
	switch o.identity.Owner {
	case owner:
		return nil
	case uuid.Nil:
	default:
		return fmt.Errorf("%w: %v", ErrClaimed, o.identity.Owner)
	}
	id := o.identity
	id.Owner = owner
	return o.rewrite(id)
}

// rewrite puts an identity in the place of the one that is there. Its generation becomes
// the newest that the ASD has seen. changing is held, or nobody else is there.
func (o *ownership) rewrite(id Identity) error {
	id.Generation = max(id.Generation, o.newest().Number)
	// Under a name of its own: a segment may be on its way under newName.
	err := replace(o.dir.fs, o.dir.path, identityNew, identityName, appendIdentity(nil, id, rand.Uint64()))
	if errors.Is(err, errNameNotSynced) && !noDescriptor(err) {
		return o.health.fail(err) // the next Open sees which identity the medium has (rule P6)
	}
	if err == nil {
		o.identity.Owner, o.identity.Generation = id.Owner, id.Generation // the rest never changes
	}
	return err
}

// migrate writes an identity of an older version as of today's. The new file is whole
// before it gets the name, so a power cut leaves the one or the other. If that cannot be
// done now, the next Open does it: nothing else depends on it.
func (o *ownership) migrate(version uint16) {
	if version == identityVersion || o.health.readOnly() != nil {
		return
	}
	if err := o.rewrite(o.identity); err != nil {
		o.dir.log.Warn("asd: its identity stays in its older format", "asd", o.dir.id, "dir", o.dir.path, "version", version, "err", err)
	}
}

// raise has the ASD remember a generation, durably.
func (o *ownership) raise(ctx context.Context, m generation.Mark) error {
	if err := o.changing.Take(ctx); err != nil {
		return err
	}
	defer o.changing.Give()
	if err := o.health.writable(); err != nil {
		return err
	}
	if o.newest() == m {
		return nil
	}
	if err := o.writeClaim(m); err != nil {
		return fmt.Errorf("asd: raise %s to %v: %w", o.dir.path, m, err)
	}
	o.turn++
	o.claimed.Store(&m)
	return nil
}

// writeClaim puts a mark in the block whose turn it is. changing is held.
func (o *ownership) writeClaim(m generation.Mark) error {
	turn := o.turn + 1
	block := appendClaim(nil, o.dir.id, turn, m)
	if o.turn == 0 { // there is no file yet
		return o.health.failOnReadOnlyFS(replace(o.dir.fs, o.dir.path, claimNew, claimName, append(block, block...)))
	}
	f, err := o.dir.openFile(o.dir.join(claimName), disk.Write)
	if err != nil {
		return o.health.failOnReadOnlyFS(err)
	}
	_, err = f.WriteAt(block, int64(turn%claimBlocks)*blockSize)
	if err == nil {
		err = f.Datasync()
	}
	if err != nil {
		err = o.health.fail(err)
	}
	return errors.Join(err, f.Close())
}

// Identity returns the identity as it is now.
func (a *ASD) Identity() Identity { return a.ownership.current() }

// Claim gives the ASD its owner, durably. An ASD that has that owner stays as
// it is; one that has another is refused with ErrClaimed.
func (a *ASD) Claim(ctx context.Context, owner uuid.UUID) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if owner == uuid.Nil {
		return fmt.Errorf("asd: claim %s: %w: no owner", a.opt.Dir, osd.ErrInvalid)
	}
	if err := a.health.writable(); err != nil {
		return err
	}
	if err := a.ownership.claim(owner); err != nil {
		return fmt.Errorf("asd: claim %s: %w", a.opt.Dir, err)
	}
	return nil
}

// Claimed is the newest generation that the ASD has seen.
func (a *ASD) Claimed() generation.Mark { return a.ownership.newest() }

// Raise has the ASD remember a generation, durably. The caller has judged that
// Claimed is no newer one. A failed write or sync makes the ASD read-only, as
// any other does.
func (a *ASD) Raise(ctx context.Context, m generation.Mark) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return a.ownership.raise(ctx, m)
}
