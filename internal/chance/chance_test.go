package chance_test

import (
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"openvstorage/internal/chance"
)

type source interface {
	Float64() float64
	Shuffle(n int, swap func(i, j int))
}

var _, _ source = chance.Chance{}, (*rand.Rand)(nil)

// Many goroutines draw at once. Each gets an order of all things.
func TestChance(t *testing.T) {
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			var c chance.Chance
			for range 100 {
				if f := c.Float64(); f < 0 || f >= 1 {
					t.Error(f)
				}
				list := []int{0, 1, 2, 3, 4}
				c.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
				slices.Sort(list)
				if !slices.Equal(list, []int{0, 1, 2, 3, 4}) {
					t.Error(list)
				}
			}
		})
	}
	all.Wait()
}
