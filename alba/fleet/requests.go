package fleet

import (
	"context"
	"errors"
	"fmt"

	"openvstorage/alba/osd"

	"github.com/google/uuid"
)

// ID implements osd.OSD.
func (d *Disk) ID() uuid.UUID { return d.UUID }

// Apply implements osd.OSD. When the disk is seen not to answer, what still waits
// for its turn is given up.
func (d *Disk) Apply(ctx context.Context, asserts []osd.Assert, updates []osd.Update) error {
	o, err := d.attached.target()
	if err != nil {
		return err
	}
	bytes := 0
	for i := range updates {
		bytes += len(updates[i].Value.Data)
	}
	i, err := d.health.begin(writing, bytes)
	if err != nil {
		return err
	}
	d.load.Add(1)
	defer d.load.Add(-1)
	answers := d.Answers()
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(answers, cancel)
	err = o.Apply(ctx, asserts, updates)
	stop()
	cancel()
	d.health.end(writing, i, err)
	if left(err, answers) {
		err = fmt.Errorf("%w: %w", ErrNotAnswering, err)
	}
	d.wrote(putBytes(updates), err)
	return d.name(err)
}

// ApplyAside is Apply for a caller that must not wait for a disk that does not answer.
// After an error the disk may still read what was passed: that must not be changed any
// more.
func (d *Disk) ApplyAside(ctx context.Context, asserts []osd.Assert, updates []osd.Update) error {
	_, err := aside(ctx, d, func(ctx context.Context) (struct{}, error) { return struct{}{}, d.Apply(ctx, asserts, updates) })
	return err
}

// Read implements osd.OSD.
func (d *Disk) Read(ctx context.Context, key []byte, off uint32, p []byte, crcs []uint32) error {
	o, err := d.attached.target()
	if err != nil {
		return err
	}
	i, err := d.health.begin(reading, len(p))
	if err != nil {
		return err
	}
	return d.read(ctx, o, i, key, off, p, crcs)
}

// ReadWaiting is Read for a caller that has no other disk to ask: it also asks a disk that
// does not answer.
func (d *Disk) ReadWaiting(ctx context.Context, key []byte, off uint32, p []byte, crcs []uint32) error {
	o, err := d.attached.target()
	if err != nil {
		return err
	}
	return d.read(ctx, o, d.health.beginAnyway(reading, len(p)), key, off, p, crcs)
}

func (d *Disk) read(ctx context.Context, o osd.OSD, i int32, key []byte, off uint32, p []byte, crcs []uint32) error {
	d.load.Add(1)
	defer d.load.Add(-1)
	d.counts.reads.Add(1)
	err := o.Read(ctx, key, off, p, crcs)
	d.health.end(reading, i, err)
	if err == nil {
		return nil
	}
	if osd.BlameOf(err) != osd.Nobody {
		d.counts.readErrors.Add(1)
	}
	if errors.Is(err, osd.ErrCorrupt) {
		d.counts.corrupt.Add(1)
	}
	return d.name(err)
}

// ReadAside is Read for a caller that must not wait for a disk that does not answer. After
// an error the disk may still write to p and crcs.
func (d *Disk) ReadAside(ctx context.Context, key []byte, off uint32, p []byte, crcs []uint32) error {
	_, err := aside(ctx, d, func(ctx context.Context) (struct{}, error) { return struct{}{}, d.Read(ctx, key, off, p, crcs) })
	return err
}

// ask makes a call that is neither a read nor a write. Its caller leaves it if the disk
// does not answer.
func ask[T any](ctx context.Context, d *Disk, k kind, call func(context.Context, osd.OSD) (T, error)) (v T, err error) {
	o, err := d.attached.target()
	if err != nil {
		return v, err
	}
	i, err := d.health.begin(k, 0)
	if err != nil {
		return v, err
	}
	v, err = aside(ctx, d, func(ctx context.Context) (T, error) {
		v, err := call(ctx, o)
		d.health.end(k, i, err)
		return v, d.name(err)
	})
	return v, err
}

// Stat implements osd.OSD. Keys must not be changed after an error.
func (d *Disk) Stat(ctx context.Context, keys [][]byte) ([]osd.Info, error) {
	return ask(ctx, d, asking, func(ctx context.Context, o osd.OSD) ([]osd.Info, error) { return o.Stat(ctx, keys) })
}

// Range implements osd.OSD.
func (d *Disk) Range(ctx context.Context, first, last []byte, limit int) ([]osd.Info, error) {
	return ask(ctx, d, asking, func(ctx context.Context, o osd.OSD) ([]osd.Info, error) { return o.Range(ctx, first, last, limit) })
}

// Verify implements osd.OSD.
func (d *Disk) Verify(ctx context.Context, after []byte, limit int) ([]osd.Bad, []byte, error) {
	type found struct {
		bad  []osd.Bad
		next []byte
	}
	// It may read as many whole values as it is asked to. That it takes its time says
	// nothing of the disk, unless nothing else comes back either.
	v, err := ask(ctx, d, verifying, func(ctx context.Context, o osd.OSD) (v found, err error) {
		v.bad, v.next, err = o.Verify(ctx, after, limit)
		return v, err
	})
	return v.bad, v.next, err
}

// Usage implements osd.OSD.
func (d *Disk) Usage(ctx context.Context) (osd.Usage, error) {
	return ask(ctx, d, asking, func(ctx context.Context, o osd.OSD) (osd.Usage, error) { return o.Usage(ctx) })
}

// aside makes a call on a disk, and leaves it if the disk does not answer or ctx ends. What
// the call reads must not be changed any more then.
func aside[T any](ctx context.Context, d *Disk, call func(ctx context.Context) (T, error)) (v T, err error) {
	answers := d.Answers()
	type result struct {
		v   T
		err error
	}
	done := make(chan result, 1)
	inner, cancel := context.WithCancel(ctx)
	defer cancel() // what still waits for its turn is not done any more
	go func() {
		var r result
		r.v, r.err = call(inner)
		done <- r
	}()
	select {
	case r := <-done:
		return r.v, r.err
	case <-ctx.Done():
		return v, d.name(ctx.Err())
	case <-answers.Done():
	}
	select { // it has come back meanwhile
	case r := <-done:
		return r.v, r.err
	default:
	}
	if err := d.Silent(); err != nil {
		return v, err
	}
	return v, d.name(ErrNotAnswering)
}

// left reports whether a call was left because the disk does not answer.
func left(err error, answers context.Context) bool {
	return errors.Is(err, context.Canceled) && answers.Err() != nil
}
