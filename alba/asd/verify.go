package asd

import (
	"context"
	"errors"
	"fmt"

	"openvstorage/alba/osd"
)

// verifyPiece is how much of a value Verify holds at a time.
const verifyPiece = 256 << 10

// verify reads up to limit values behind a key, as osd.OSD.Verify does.
func (r *reader) verify(ctx context.Context, after []byte, limit int) (bad []osd.Bad, next []byte, err error) {
	key := after
	piece := make([]byte, verifyPiece)
	for range limit {
		if err := ctx.Err(); err != nil {
			return nil, nil, err
		}
		var size uint32
		if key, size, err = r.following(key); err != nil || key == nil {
			return bad, nil, err
		}
		switch err := r.verifyValue(ctx, key, size, piece); {
		case err == nil, errors.Is(err, osd.ErrNotFound), errors.Is(err, osd.ErrInvalid): // deleted or replaced since
		case errors.Is(err, osd.ErrClosed), ctx.Err() != nil:
			return nil, nil, err
		case !isDamage(err) && !errors.Is(err, osd.ErrUnreadable):
			return nil, nil, fmt.Errorf("asd: verify: %w", err) // it says nothing of the value
		default:
			bad = append(bad, osd.Bad{Key: key, Err: err})
		}
	}
	if last, _, err := r.following(key); err != nil || last == nil {
		return bad, nil, err
	}
	return bad, key, nil
}

// following returns the first key behind another, nil if there is none.
func (r *reader) following(after []byte) (key []byte, size uint32, err error) {
	if r.health.closed() {
		return nil, 0, fmt.Errorf("asd: verify: %w", osd.ErrClosed)
	}
	key, size = r.contents.following(after)
	return key, size, nil
}

// verifyValue reads a value piece by piece, for the checks that reading makes.
func (r *reader) verifyValue(ctx context.Context, key []byte, size uint32, piece []byte) error {
	var crcs [verifyPiece / blockSize]uint32
	for off := uint32(0); off < size; off += verifyPiece {
		if err := ctx.Err(); err != nil {
			return err
		}
		n := min(verifyPiece, size-off)
		if err := r.read(key, off, piece[:n], crcs[:osd.Blocks(int(n))]); err != nil {
			return err
		}
	}
	return nil
}
