// Package chance is what code that draws lots is given when it runs for real; a
// test gives it a *rand.Rand with a seed.
package chance

import "math/rand/v2"

// Chance draws from the source of the process. A *rand.Rand has the same methods,
// but not for use by many at once, as this. The zero value is ready for use.
type Chance struct{}

// Float64 returns a number from 0 to 1, 1 excluded.
func (Chance) Float64() float64 { return rand.Float64() }

// Shuffle puts n things in an order of no meaning by swapping them.
func (Chance) Shuffle(n int, swap func(i, j int)) { rand.Shuffle(n, swap) }
