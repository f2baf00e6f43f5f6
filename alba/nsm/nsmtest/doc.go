// Package nsmtest stands in for a cluster in tests of the managers and of what stands on
// them: Store holds the state of user functions in memory, and Calls takes down what a
// client would have replicated.
package nsmtest
