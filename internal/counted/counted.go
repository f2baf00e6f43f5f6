// Package counted writes numbers of things as people say them: "1 connection", "2
// connections", "0 connections".
package counted

import "fmt"

// Of writes a number, and behind it what one thing is called, or what several are. A
// verb that goes with them is in both: Of(n, "object is", "objects are").
func Of[N ~int | ~int32 | ~int64 | ~uint | ~uint32 | ~uint64](n N, one, several string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, several)
}
