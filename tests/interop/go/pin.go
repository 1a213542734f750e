// Package interop pins the stock Go client whose own tests run against Offprint.
package interop

import _ "github.com/tursodatabase/libsql-client-go/libsql"
