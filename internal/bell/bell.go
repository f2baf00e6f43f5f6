// Package bell wakes a goroutine that has something to look at.
package bell

import "sync"

// Bell is rung by whoever has made work, and heard by the goroutine that does the work.
// Ringing never blocks. Several rings before the bell is heard count as one: whoever
// hears it looks at all the work that there is. The zero value is a bell that has not
// been rung. Its methods are safe for concurrent use; a Bell must not be copied.
type Bell struct {
	made sync.Once
	c    chan struct{}
}

func (b *Bell) make() { b.c = make(chan struct{}, 1) }

// Ring rings the bell: whoever receives from Rung next does so at once.
func (b *Bell) Ring() {
	b.made.Do(b.make)
	select {
	case b.c <- struct{}{}:
	default: // it is to be heard already
	}
}

// Rung delivers one value for all rings since the last value. It always returns the
// same channel, which is never closed.
func (b *Bell) Rung() <-chan struct{} {
	b.made.Do(b.make)
	return b.c
}
