package asd

import (
	"errors"
	"sync/atomic"

	"openvstorage/alba/osd"

	"golang.org/x/sys/unix"
)

// health says whether the ASD is closed, and whether it takes writes. Both change once
// and never back: only another Open begins anew. The hot paths ask, so there is no lock.
type health struct {
	dir    *directory
	ended  atomic.Bool
	reason atomic.Pointer[readOnly]
}

// closed reports whether Close has been called.
func (h *health) closed() bool { return h.ended.Load() }

// close refuses all further calls. It returns osd.ErrClosed if that was done before.
func (h *health) close() error {
	if !h.ended.CompareAndSwap(false, true) {
		return osd.ErrClosed
	}
	return nil
}

// writable returns why the ASD takes no writes, or nil.
func (h *health) writable() error {
	if h.closed() {
		return osd.ErrClosed
	}
	return h.readOnly()
}

// readOnly returns why the ASD has become read-only, or nil.
func (h *health) readOnly() error {
	if r := h.reason.Load(); r != nil {
		return r
	}
	return nil
}

// fail makes the ASD read-only: it is not known what the medium has of the current
// segment (rule P6). It returns the first reason; later ones follow from it.
func (h *health) fail(cause error) error {
	r := &readOnly{cause}
	if !h.reason.CompareAndSwap(nil, r) {
		return h.reason.Load()
	}
	h.dir.log.Error("asd: no more writes", "asd", h.dir.id, "dir", h.dir.path, "err", cause)
	return r
}

// failOnReadOnlyFS makes the ASD read-only if an error says that its file system is,
// mounted so or not: some that have failed show it only by refusing writes. What the
// ASD holds can still be read.
func (h *health) failOnReadOnlyFS(err error) error {
	if errors.Is(err, unix.EROFS) {
		return h.fail(err)
	}
	return err
}
