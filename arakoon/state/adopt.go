package state

import (
	"context"
	"errors"
	"fmt"

	"openvstorage/internal/disk/pebblefs"

	"github.com/cockroachdb/pebble/v2"
)

// Dir is the directory that the state is in.
func (s *State) Dir() string { return s.opt.Dir }

// Lineage is the life and the newest generation that the state knows of.
func (s *State) Lineage() (life, generation uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.meta.life, s.meta.generation
}

// Adopt makes the files of a checkpoint in opt.Dir, which came from another member, this
// member's: the state says afterwards that it is opt.Member's, and keeps the newest of its
// own and the given life. Its generation becomes opt.Generation, as generations are a
// host's own. It returns how far that state is applied.
//
// When it returns nil all of it is durable but for the name of opt.Dir itself. After an
// error, or a power cut before that, the directory is of no use any more and the files
// must be fetched again. It refuses, with ErrIdentity, another cluster's state and one of a
// later life, and with ErrDamaged a directory that holds no state. While the disk is full
// it waits, tells opt.OnFull, and can be cancelled. Nobody else may use the directory.
func Adopt(ctx context.Context, opt Options) (Position, error) {
	opt = opt.withDefaults()
	at, err := adopt(ctx, opt)
	if ctx.Err() != nil { // what reported success after that has done nothing
		err = ctx.Err()
	}
	if err != nil {
		return Position{}, fmt.Errorf("arakoon state: adopt %s: %w", opt.Dir, damaged(err))
	}
	return at, nil
}

func adopt(ctx context.Context, opt Options) (at Position, err error) {
	var fs *pebblefs.FS
	// A store that has failed is abandoned, as Pebble would wait for its disk for ever.
	fs = pebblefs.New(opt.FS, pebblefs.Options{OnFull: opt.OnFull, OnRoom: opt.OnRoom, OnFailure: func(error) { fs.Abandon() }})
	defer context.AfterFunc(ctx, fs.Abandon)()
	po, done := opt.pebble(fs)
	defer done()
	if err := checkMarker(fs, opt.Dir); err != nil {
		return at, err
	}
	if err := dropBadOptions(fs, opt.Dir, po); err != nil {
		return at, err
	}
	po.ErrorIfNotExists = true
	db, err := pebblefs.Open(opt.Dir, po)
	if errors.Is(err, pebble.ErrDBDoesNotExist) {
		return at, fmt.Errorf("%w: it holds none", ErrDamaged)
	}
	if err != nil {
		return at, err
	}
	defer func() {
		if e := fs.Close(db); err == nil {
			err = e
		}
	}()
	v, found, err := get(db, metaKey)
	if err != nil {
		return at, err
	}
	if !found {
		return at, fmt.Errorf("%w: it does not say whose it is", ErrDamaged)
	}
	m, err := decodeMeta(v)
	if err == nil {
		err = opt.mayOpen(m)
	}
	switch {
	case err != nil:
		return at, err
	case m.cluster != opt.Cluster:
		return at, fmt.Errorf("%w: it is of cluster %v, not of %v", ErrIdentity, m.cluster, opt.Cluster)
	case opt.Life != 0 && m.life > opt.Life:
		return at, fmt.Errorf("%w: it is of life %d, and this member is of life %d, which is older", ErrIdentity, m.life, opt.Life)
	}
	m.member, m.generation, m.life = opt.Member, opt.Generation, max(m.life, opt.Life)
	if err := db.Set(metaKey, appendMeta(nil, m), pebble.NoSync); err != nil {
		return at, err
	}
	return m.at, fs.Flush(db)
}
