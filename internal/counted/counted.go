// Package counted writes numbers of things as people say them: "1 connection", "2
// connections", "0 connections".
package counted

import "fmt"

// Of writes a number and the noun behind it: one is the singular, several the plural. A
// verb that follows is part of both: Of(n, "object is", "objects are").
func Of[N ~int | ~int32 | ~int64 | ~uint | ~uint32 | ~uint64](n N, one, several string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, several)
}
