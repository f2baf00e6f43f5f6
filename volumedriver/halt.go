package volumedriver

import (
	"cmp"
	"errors"
	"fmt"
	"syscall"

	"openvstorage/writebuffer"
)

// errDeleted ends the log of a vDisk that is being deleted.
var errDeleted = errors.New("deleted")

// haltError is why a vDisk is halted (P3). It is EIO to front ends.
type haltError struct {
	name  string
	cause error
	gone  bool   // it is deleted: reads fail too
	shut  string // not halted, but not open for now: the state in which it is listed
}

func (e *haltError) Error() string {
	if e.gone {
		return fmt.Sprintf("vDisk %q: deleted", e.name)
	}
	if e.shut != "" {
		return fmt.Sprintf("vDisk %q: not open: %s", e.name, e.reason())
	}
	return fmt.Sprintf("vDisk %q: halted: %s", e.name, e.reason())
}

// reason is the error without the name and the state of the vDisk, beside which it is listed.
func (e *haltError) reason() string {
	if e.gone || e.shut != "" {
		return e.cause.Error()
	}
	return fmt.Sprintf("%v; verified reads go on: copy out what you need, repair the cause and start again", e.cause)
}

func (e *haltError) Unwrap() []error {
	if e.shut != "" {
		return []error{ErrBusy, earlier{e.cause}}
	}
	return []error{ErrHalted, syscall.EIO, e.cause}
}

// state is how a vDisk is listed.
func (e *haltError) state() string { return cmp.Or(e.shut, StateHalted) }

// halt stops writes and management of this vDisk, and of no other (P3). The first cause is
// kept. The log's end with the vDisk is no cause.
func (c *core) halt(cause error) {
	if cause == nil || errors.Is(cause, writebuffer.ErrClosed) || errors.Is(cause, errDeleted) {
		return
	}
	h := &haltError{name: c.Name(), cause: cause}
	if c.halted.CompareAndSwap(nil, h) {
		c.log.Error("vDisk halted", "err", cause)
		if c.buf != nil {
			c.buf.Fail(h)
		}
	}
}

// Err is why the vDisk is halted, or nil.
func (c *core) Err() error {
	if h := c.halted.Load(); h != nil {
		return h
	}
	return nil
}

// revoke has all requests to a deleted vDisk fail from now on, reads too.
func (c *core) revoke() {
	h := &haltError{name: c.Name(), cause: errDeleted, gone: true}
	c.halted.Store(h)
	if c.buf != nil {
		c.buf.Fail(h)
	}
}

// gone is why nothing can be read any more, or nil.
func (c *core) gone() error {
	if h := c.halted.Load(); h != nil && h.gone {
		return h
	}
	return nil
}

// writeError is the error of something that changes the vDisk: if that is halted, the
// reason for it says more than what the log answered.
func (c *core) writeError(err error) error {
	if h := c.Err(); h != nil {
		return h
	}
	return fmt.Errorf("vDisk %q: %w", c.Name(), err)
}
