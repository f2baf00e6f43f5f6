package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"

	"openvstorage/alba/fleet"
	"openvstorage/alba/manifest"
	"openvstorage/alba/nsm"
	"openvstorage/alba/object"
	"openvstorage/backend"
)

// reader reads objects: from their manifests, the fragment cache and the disks.
type reader struct {
	fleet     *fleet.Fleet
	manifests *manifests
	cache     Cache        // nil: none
	bad       func(Bad)    // hears of bad fragments
	unread    func(Unread) // hears of ranges that can be neither read nor made
	log       *slog.Logger

	counts  readCounts
	buffers buffers
	openers sync.Pool     // of *scratch: no payload
	tasks   sync.Pool     // of *task: no payload
	sparing atomic.Uint32 // reads that would have gone to a disk that is slow
	hedges  budget
}

type readCounts struct {
	reads, readBytes, cacheHits, asked, hedged, hedgeReads, degraded, unreadable atomic.Uint64
}

// scratch is what a read needs besides its buffers. It is for one read at a
// time.
type scratch struct {
	opener object.Opener
	pieces []object.Piece
	ranges []object.Range
}

// get fills p from offset off of an object.
func (rd *reader) get(ctx context.Context, s *space, name string, p []byte, off uint64) (int, error) {
	e, err := rd.manifests.entry(ctx, s, name)
	if err != nil {
		return 0, err
	}
	n, err := rd.read(ctx, s, e, p, off)
	if err == nil || errors.Is(err, io.EOF) || ctx.Err() != nil {
		return n, err
	}
	// Another object may have the name by now, or the fragments may have moved.
	fresh, changed, again := rd.manifests.refresh(ctx, s, e)
	switch {
	case again != nil && errors.Is(err, backend.ErrUnavailable) && !errors.Is(again, nsm.ErrNotFound) && !errors.Is(again, nsm.ErrNamespaceNotFound):
		return n, errors.Join(err, again) // neither is known
	case again != nil:
		return 0, again
	case changed:
		return rd.read(ctx, s, fresh, p, off)
	}
	return n, err
}

// read fills p from the object of a manifest.
func (rd *reader) read(ctx context.Context, s *space, e *entry, p []byte, off uint64) (int, error) {
	m := e.m
	if off >= m.Size {
		return 0, io.EOF
	}
	n := int(min(uint64(len(p)), m.Size-off))
	x := rd.openers.Get().(*scratch)
	defer rd.openers.Put(x)
	if err := x.opener.Reset(m, e.master); err != nil {
		return 0, err
	}
	if m.Inlined {
		return n, x.opener.Inline(p[:n], off)
	}
	var err error
	if x.pieces, err = object.Pieces(x.pieces[:0], m, off, n); err != nil {
		return 0, err
	}
	at := 0
	for _, piece := range x.pieces {
		if err := rd.readPiece(ctx, s, e, x, piece, p[at:at+int(piece.Len)]); err != nil {
			return at, err
		}
		at += int(piece.Len)
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// readPiece fills dst with a piece of a chunk.
func (rd *reader) readPiece(ctx context.Context, s *space, e *entry, x *scratch, piece object.Piece, dst []byte) error {
	table := e.table(piece.Chunk)
	if span, ok := object.TableSpan(e.m, piece.Chunk); ok && table == nil {
		buf := rd.buffers.take(span.BufferLen())
		err := rd.readSpan(ctx, s, e, x, span, buf)
		if err == nil {
			table, err = x.opener.Table(piece.Chunk, buf)
		}
		rd.buffers.give(buf)
		if err != nil {
			return err
		}
		e.setTable(piece.Chunk, table)
	}
	span, err := object.Locate(e.m, piece, table)
	if err != nil {
		return err
	}
	if plain(e.m, span, len(dst)) {
		// What is stored is what is wanted: no copy.
		return rd.readSpan(ctx, s, e, x, span, dst)
	}
	buf := rd.buffers.take(span.BufferLen())
	defer func() { rd.buffers.give(buf) }()
	if err := rd.readSpan(ctx, s, e, x, span, buf); err != nil {
		return err
	}
	return x.opener.Open(dst, span, table, buf)
}

// plain reports whether the stored bytes of a span are the plain ones: blocks
// of a dense chunk without a cipher, whole blocks of the checksum.
func plain(m *manifest.Manifest, span object.Span, n int) bool {
	return m.Chunks[span.Chunk].Dense && m.Scheme.Cipher == 0 && int(span.To-span.From) == n && span.BufferLen() == n
}

// readSpan fills buf, of span.BufferLen bytes, with the stored bytes of a span.
func (rd *reader) readSpan(ctx context.Context, s *space, e *entry, x *scratch, span object.Span, buf []byte) error {
	x.ranges = object.Ranges(x.ranges[:0], e.m, span)
	switch len(x.ranges) {
	case 0:
		return nil
	case 1:
		return rd.readRange(ctx, s, e, x.ranges[0], buf)
	}
	// Fragments are on disks of their own: read side by side.
	errs := make(chan error, len(x.ranges))
	at := 0
	for _, r := range x.ranges {
		part := buf[at : at+int(r.Len)]
		at += int(r.Len)
		go func() { errs <- rd.readRange(ctx, s, e, r, part) }()
	}
	var all []error
	for range x.ranges {
		all = append(all, <-errs)
	}
	return errors.Join(all...)
}

// unreadable is the error of a range that can be neither read nor made. It counts the
// range, and reports it unless the read was given up.
func (rd *reader) unreadable(s *space, e *entry, r object.Range, err error) error {
	rd.counts.unreadable.Add(1)
	if !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
		rd.unread(Unread{Namespace: e.m.Namespace, Name: e.m.Name, Object: e.m.Object, Range: r, Err: err})
	}
	return fmt.Errorf("object %s of namespace %s: chunk %d cannot be read: %d of its %d fragments are needed: %w",
		e.m.Name, s.name, r.Chunk, e.m.Policy.K, e.m.Policy.Width(), err)
}
