# ActiveRecord by the README's module: two users in turn, every fifth transaction undone.
require "active_record"
require "json"
require "./audit"

ActiveRecord::Base.establish_connection(adapter: "postgresql") # the rest is in PGHOST and the like
class Order < ActiveRecord::Base; end

200.times do |n|
  user = n.odd? ? "o'hara" : "ann"
  Audit.as({ user_id: user, ip_address: "10.0.0.9", app: "ruby" }) do
    Order.create!(who: user, app: "ruby")
    raise ActiveRecord::Rollback if n % 5 == 0
    Order.where(who: user, app: "ruby").order(:id).last(1).each { |order| order.update!(note: "again") } if n % 3 == 0
  end
end
