package osdwire

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"openvstorage/alba/osd"
	"openvstorage/internal/wire"
)

// kind is an error as it travels.
type kind uint16

const (
	kindNone       kind = 0
	kindOther      kind = 256
	kindNotFound   kind = 257
	kindAssert     kind = 258
	kindCorrupt    kind = 259
	kindUnreadable kind = 260
	kindFull       kind = 261
	kindReadOnly   kind = 262
	kindInvalid    kind = 263
	kindClosed     kind = 264
	kindDeadline   kind = 265
	kindNotHeld    kind = 266
	kindBusy       kind = 267
	kindUnreached  kind = 268
	kindCut        kind = 269
)

var (
	errNotHeld = errors.New("nothing of that number is held") // of this protocol alone
	errNoRoom  = fmt.Errorf("%w: there is no memory to hold it now", osd.ErrBusy)
)

// sentinels are in the order in which they are looked for. An error may match several: the first
// is what it is.
var sentinels = []struct {
	kind kind
	err  error
}{
	{kindNotFound, osd.ErrNotFound}, {kindAssert, osd.ErrAssert}, {kindCorrupt, osd.ErrCorrupt}, {kindUnreadable, osd.ErrUnreadable},
	{kindFull, osd.ErrFull}, {kindReadOnly, osd.ErrReadOnly}, {kindInvalid, osd.ErrInvalid}, {kindClosed, osd.ErrClosed},
	{kindNotHeld, errNotHeld}, {kindBusy, osd.ErrBusy},
	{kindInvalid, errBytes}, {kindDeadline, context.DeadlineExceeded}, {kindDeadline, context.Canceled},
	// Of an OSD that is behind another connection.
	{kindUnreached, osd.ErrUnreachable}, {kindCut, osd.ErrCut},
}

func kindOf(err error) kind {
	if err == nil {
		return kindNone
	}
	for _, s := range sentinels {
		if errors.Is(err, s.err) {
			return s.kind
		}
	}
	return kindOther
}

// wordsMax is how many bytes of an error's words travel.
const wordsMax = 1024

// told is an error that the other side told.
type told struct {
	kind  kind
	words string
}

func (e *told) Error() string { return e.words }

// Is reports whether target is what the error is. The kind's first sentinel is: that a request's
// time has passed over there is no context.Canceled here.
func (e *told) Is(target error) bool {
	for _, s := range sentinels {
		if s.kind == e.kind {
			return s.err == target
		}
	}
	return false
}

func words(err error) string {
	w := err.Error()
	return w[:min(len(w), wordsMax)]
}

func appendError(dst []byte, err error) []byte {
	dst = le.AppendUint16(dst, uint16(kindOf(err)))
	if err == nil {
		return le.AppendUint16(dst, 0)
	}
	return appendKey(dst, []byte(words(err)))
}

// error reads what appendError appended.
func (f *fields) error() error {
	k, w := kind(f.U16()), f.key()
	if f.Err != nil || k == kindNone {
		return nil
	}
	return &told{k, string(w)}
}

// failed is the answer of a request that failed.
func failed(err error) wire.Answer {
	k := kindOf(err)
	var header []byte
	if a := (*osd.AssertError)(nil); k == kindAssert && errors.As(err, &a) {
		header = appendKey(header, a.Key[:min(len(a.Key), osd.KeyMax)])
	} else if k == kindAssert {
		k = kindOther
	}
	return wire.Answer{Status: uint16(k), Header: append(header, words(err)...)}
}

// failure is the error that an answer of a status other than 0 stands for.
func failure(status uint16, header []byte) error {
	if kind(status) == kindAssert {
		f := read(header)
		if key := f.key(); f.Err == nil {
			return &osd.AssertError{Key: bytes.Clone(key)}
		}
		return fmt.Errorf("%w: a failed assert without its key", errBytes)
	}
	return &told{kind(status), string(header)}
}
