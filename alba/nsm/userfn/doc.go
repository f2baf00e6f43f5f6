// Package userfn is what a user function of Arakoon is to ALBA's managers: a
// deterministic function from the replicated keys and an argument to changes
// of those keys and a result. Every replica runs it with the same keys, the
// same argument and the same time, and must come to the same bytes. So a
// function reads no clock, draws nothing at random and ranges over no Go map.
//
// The package declares the errors of functions and the interfaces that the managers
// need: the managers do not depend on the store that runs them.
package userfn
