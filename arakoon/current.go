package arakoon

import (
	"sync"

	"openvstorage/arakoon/state"
)

// current is the state that a node has now. A snapshot of another member puts another state
// in its place, while the node runs. A call uses one state from begin to end: the old one
// stays open until the last call that uses it has returned.
type current struct {
	mu  sync.Mutex
	now *version
}

// version is a state while it is the current one, and until nobody uses it after that.
type version struct {
	*state.State
	users int                // guarded by current.mu
	end   func(*state.State) // what is done when nobody uses it; nil while it is current
}

// set puts the first state in place.
func (c *current) set(s *state.State) { c.now = &version{State: s} }

// state is the current state, for those during whose work it cannot change: they apply, or
// run before the node does or after it.
func (c *current) state() *state.State {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.now == nil {
		return nil
	}
	return c.now.State
}

// use keeps the state that is current open until leave.
func (c *current) use() *version {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now.users++
	return c.now
}

func (c *current) leave(v *version) {
	c.mu.Lock()
	v.users--
	end := v.end
	if v.users > 0 {
		end = nil
	}
	c.mu.Unlock()
	if end != nil {
		end(v.State)
	}
}

// replace makes next the current state. end is called with the old one when nobody uses it
// any more, in the goroutine of whoever used it last.
func (c *current) replace(next *state.State, end func(old *state.State)) {
	c.mu.Lock()
	old := c.now
	c.now, old.end = &version{State: next}, end
	unused := old.users == 0
	c.mu.Unlock()
	if unused {
		end(old.State)
	}
}

// What follows are the calls of package state, each with the state that is current when it
// begins.

func (c *current) Get(key []byte) ([]byte, bool, error) {
	v := c.use()
	defer c.leave(v)
	return v.Get(key)
}

func (c *current) MultiGet(keys [][]byte) ([][]byte, error) {
	v := c.use()
	defer c.leave(v)
	return v.MultiGet(keys)
}

func (c *current) Range(first, last []byte, reverse bool, fn func(key, value []byte) bool) error {
	v := c.use()
	defer c.leave(v)
	return v.Range(first, last, reverse, fn)
}

func (c *current) Visible() (uint64, error) {
	v := c.use()
	defer c.leave(v)
	return v.Visible()
}

func (c *current) Try(body []byte) error {
	v := c.use()
	defer c.leave(v)
	return v.Try(body)
}

func (c *current) TryResults(body []byte) error {
	v := c.use()
	defer c.leave(v)
	return v.TryResults(body)
}

func (c *current) Flush() (state.Position, error) {
	v := c.use()
	defer c.leave(v)
	return v.Flush()
}

func (c *current) Checkpoint(dir string) error {
	v := c.use()
	defer c.leave(v)
	return v.Checkpoint(dir)
}

func (c *current) Gone(id uint64) bool { return c.state().Gone(id) }

func (c *current) Applied() state.Position { return c.state().Applied() }

func (c *current) Has(key []byte) (bool, error) {
	v := c.use()
	defer c.leave(v)
	return v.Has(key)
}

func (c *current) Scan(first, last []byte, reverse bool, fn func(key, value []byte) bool) error {
	v := c.use()
	defer c.leave(v)
	return v.Scan(first, last, reverse, fn)
}

// What these return is in memory, and a state that was closed meanwhile has it too.

func (c *current) Level() uint32 { return c.state().Level() }

func (c *current) Requirement() (state.Requirement, uint64) { return c.state().Requirement() }

func (c *current) Lease(name string) (state.Lease, bool) { return c.state().Lease(name) }

func (c *current) Leases() []state.Lease { return c.state().Leases() }

func (c *current) LeasesVersion() uint64 { return c.state().LeasesVersion() }

// held is an image and the state that it is of, which it keeps open.
type held struct {
	*state.Image
	of  *current
	ver *version
}

// image makes an image of the state as it is.
func (c *current) image() (*held, error) {
	v := c.use()
	i, err := v.Image()
	if err != nil {
		c.leave(v)
		return nil, err
	}
	return &held{i, c, v}, nil
}

// hold keeps the state open that an image is of, which Apply has just made.
func (c *current) hold(i *state.Image) *held { return &held{i, c, c.use()} }

// Close closes the image, and lets go of the state.
func (h *held) Close() error {
	defer h.of.leave(h.ver)
	return h.Image.Close()
}
