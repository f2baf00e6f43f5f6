// Package bell wakes a goroutine that has something to look at.
package bell

import "sync"

// Bell is rung by whoever has made work, and heard by the goroutine that does it.
// To ring waits for nothing. Rings that nobody has heard yet are one: whoever hears
// it looks at all that there is. The zero value is a bell that has not been rung.
// Its methods are safe for concurrent use; a Bell must not be copied.
type Bell struct {
	made sync.Once
	c    chan struct{}
}

func (b *Bell) make() { b.c = make(chan struct{}, 1) }

// Ring rings the bell: the next who receives from Rung does so at once.
func (b *Bell) Ring() {
	b.made.Do(b.make)
	select {
	case b.c <- struct{}{}:
	default: // it is to be heard already
	}
}

// Rung delivers a value for the rings since the last one. It is always the same
// channel, and never closed.
func (b *Bell) Rung() <-chan struct{} {
	b.made.Do(b.make)
	return b.c
}
