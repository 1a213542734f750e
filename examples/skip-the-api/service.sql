-- The shop's own database: what its programs write, as they like it. Nobody else reads this.
CREATE TABLE merchants (id INTEGER PRIMARY KEY, name TEXT NOT NULL);
CREATE TABLE products (id INTEGER PRIMARY KEY, merchant INT NOT NULL REFERENCES merchants, name TEXT NOT NULL,
                       cents INT NOT NULL);
CREATE TABLE orders (id INTEGER PRIMARY KEY, merchant INT NOT NULL REFERENCES merchants, customer TEXT NOT NULL,
                     card TEXT NOT NULL, day TEXT NOT NULL, status TEXT NOT NULL DEFAULT 'open', total INT NOT NULL);
CREATE TABLE items (order_id INT NOT NULL REFERENCES orders, line INT NOT NULL, product INT NOT NULL REFERENCES products,
                    quantity INT NOT NULL, PRIMARY KEY (order_id, line));
CREATE INDEX orders_by_merchant ON orders (merchant, day);
CREATE INDEX orders_by_day ON orders (day);
CREATE INDEX items_by_product ON items (product);
CREATE INDEX products_by_merchant ON products (merchant);
